"""Picture of a sensitivity study: `python docs/sensitivity.py runs/sensitivity 5% docs/sensitivity.svg`.

Made by `glideslope compare … --sensitivity 4 --out runs/sensitivity`: score against base rate at one budget, a panel
for each task and optimizer; means and standard deviations over the seeds, without rates at which a seed diverged, up to
twice the best.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

SHOWN = {
    "none": "#9a9a9a",
    "step": "#56b4e9",
    "linear": "#009e73",
    "cosine": "#0072b2",
    "exponential": "#e69f00",
    "one_cycle": "#cc79a7",
    "rex": "#d55e00",
}


def main(folder: str, budget: str, target: str) -> None:
    text = subprocess.run(["glideslope", "report", folder, "--json"], check=True, capture_output=True, text=True).stdout
    share = float(budget.rstrip("%")) / 100
    cells = [cell for cell in json.loads(text)["cells"] if cell["budget"] == share and None not in cell["scores"]]
    panels = list(dict.fromkeys((cell["task"], cell["optimizer"]) for cell in cells))
    plt.rcParams.update({"font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "glideslope"})
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 3.2), layout="constrained", squeeze=False)
    for axis, panel in zip(axes[0], panels, strict=True):
        for schedule, color in SHOWN.items():
            row = [c for c in cells if (c["task"], c["optimizer"]) == panel and c["schedule"] == schedule]
            means = [statistics.mean(cell["scores"]) for cell in row]
            errors = [statistics.stdev(cell["scores"]) for cell in row]
            rates = [cell["rate"] for cell in row]
            axis.errorbar(rates, means, errors, color=color, label=schedule, marker="o", markersize=3, lw=1.3)
        best = min(statistics.mean(cell["scores"]) for cell in cells if (cell["task"], cell["optimizer"]) == panel)
        axis.set_ylim(0.97 * best, min(2 * best, axis.get_ylim()[1]))
        axis.set_xscale("log")
        axis.set_title(f"{', '.join(panel)}, {budget}", fontsize=9)
        axis.set_xlabel("base learning rate")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[0, 0].set_ylabel("test metric at the last step\n(lower is better)")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SHOWN), frameon=False)
    figure.savefig(target, metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
