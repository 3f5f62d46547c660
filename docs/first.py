"""The README's picture: `python docs/first.py runs/first docs/first.svg` after `glideslope compare --out runs/first`.

Every schedule against linear, paired by seed: mean and standard error of the relative difference.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

BASELINE = "linear"
SHOWN = {
    "none": "#9a9a9a",
    "step": "#56b4e9",
    "linear": "#009e73",
    "cosine": "#0072b2",
    "one_cycle": "#cc79a7",
    "rex": "#d55e00",
    "rex+warmup(10%)": "#e69f00",
}


def main(folder: str, target: str) -> None:
    text = subprocess.run(["glideslope", "report", folder, "--json"], check=True, capture_output=True, text=True).stdout
    cells = json.loads(text)["cells"]
    found = {((c["task"], c["optimizer"]), c["budget"], c["schedule"]): c["scores"] for c in cells}
    panels = list(dict.fromkeys((cell["task"], cell["optimizer"]) for cell in cells))
    plt.rcParams.update({"font.size": 9, "svg.fonttype": "path", "svg.hashsalt": "glideslope"})
    figure, axes = plt.subplots(1, len(panels), figsize=(3.1 * len(panels), 3.2), sharey=True, layout="constrained")
    for axis, (task, optimizer) in zip(axes, panels, strict=True):
        for schedule, color in SHOWN.items():
            differences = {}
            for (place, budget, name), scores in found.items():
                reference = found[place, budget, BASELINE]
                if (
                    place == (task, optimizer)
                    and name == schedule
                    and None not in (*scores.values(), *reference.values())
                ):
                    differences[100 * budget] = [100 * (scores[seed] / reference[seed] - 1) for seed in scores]
            means = [statistics.mean(values) for values in differences.values()]
            errors = [statistics.stdev(values) / len(values) ** 0.5 for values in differences.values()]
            axis.errorbar(
                list(differences), means, errors, color=color, label=schedule, marker="o", markersize=3, lw=1.3
            )
        axis.set_xscale("log")
        axis.set_xticks([1, 5, 10, 25, 50, 100], ["1", "5", "10", "25", "50", "100"])
        axis.minorticks_off()
        axis.set_title(f"{task}, {optimizer}", fontsize=9)
        axis.set_xlabel("budget, % of the maximum")
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    axes[0].set_ylabel(f"test metric against {BASELINE}, %\n(below 0 is better)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(SHOWN), frameon=False)
    figure.savefig(target, facecolor="white", metadata={"Date": None})


if __name__ == "__main__":
    main(*sys.argv[1:])
