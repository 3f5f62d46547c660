"""`import glideslope` costs NumPy and nothing else."""

import subprocess
import sys


def test_importing_and_using_the_library_loads_no_framework():
    program = (
        "import sys, glideslope\n"
        "glideslope.parse_policy('rex @ plateaus(4) + warmup(10%) | plateau')\n"
        "glideslope.Cycles(glideslope.Cosine(), 0.1, 1.5).sample(100)\n"
        "heavy = 'torch jax keras tensorflow scipy sklearn mnist1d polars plotly typer rich safetensors lightning'\n"
        "print(sorted(set(heavy.split()) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
