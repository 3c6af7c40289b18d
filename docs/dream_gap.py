"""Draw how far C's return in its dream exceeds the one in the world, search by search, as SVG.

Usage: python docs/dream_gap.py WORKSPACE control/0001 [control/0002 ...] OUT.svg
"""

import argparse
import json
import textwrap
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

DREAM, WORLD = "#d55e00", "#0072b2"  # Okabe and Ito
MOST_ABREAST = 3  # searches in a row
TITLE = 40  # characters in a line above a panel


def told(folder: Path) -> str:
    """On what terms a search dreamt."""
    manifest = json.loads((folder / "manifest.json").read_text())
    control = manifest["config"]["control"]
    words = [f"{control['dream_end']} ends, temperature {control['temperature']:g}"]
    if control["dream_dropout"]:
        words.append(f"dropout {control['dream_dropout']:g}")
    if control.get("method") == "ppo":
        words.append("ppo")
    if any(parent["kind"] == "control" for parent in manifest["parents"]):
        words.append("from an earlier C")
    return ", ".join(words)


def scores(folder: Path) -> list[tuple[int, list[float], list[float]]]:
    """Generation, returns in the dream and returns in the world of every scored mean vector."""
    rows = map(json.loads, (folder / "search.jsonl").read_text().splitlines())
    return [(row["generation"], row["dreamt"], row["selection"]) for row in rows if "dreamt" in row]


def draw(axes: Axes, folder: Path) -> None:
    """One search: two curves with their standard errors, and the space between them."""
    found = scores(folder)
    steps = [generation for generation, _, _ in found]
    means = []
    for returns, colour, name in zip(
        zip(*[(dreamt, world) for _, dreamt, world in found], strict=True),
        (DREAM, WORLD),
        ("in the dream", "in the world"),
        strict=True,
    ):
        mean = np.array([np.mean(each) for each in returns])
        error = np.array([np.std(each, ddof=1) / np.sqrt(len(each)) for each in returns])
        axes.plot(steps, mean, color=colour, marker=".", label=name)
        axes.fill_between(steps, mean - error, mean + error, color=colour, alpha=0.2, linewidth=0)
        means.append(mean)
    axes.fill_between(steps, *means, color="0.5", alpha=0.08, linewidth=0)
    gap = float(np.mean(means[0] - means[1]))
    title = "\n".join(textwrap.wrap(f"{folder.name}: {told(folder)}", TITLE))
    axes.set_title(f"{title}\ngap {gap:+,.0f} on the mean", fontsize=8)


def main(root: Path, names: list[str], out: str) -> None:
    """Draw the searches that were named side by side."""
    mpl.rcParams["svg.hashsalt"] = "dream_gap"
    width = min(len(names), MOST_ABREAST)
    height = -(-len(names) // width)
    figure = Figure(figsize=(3.2 * width, 3 * height), layout="constrained")
    panels = figure.subplots(height, width, sharey=True, squeeze=False)
    for axes, name in zip(panels.flat, names, strict=False):  # the last row may have room
        draw(axes, root / name)
        axes.grid(alpha=0.3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    figure.supxlabel("generation", fontsize=10)
    figure.supylabel("return of the mean vector", fontsize=10)
    panels[0, 0].legend(fontsize=8)
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    words = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    words.add_argument("workspace", type=Path, metavar="WORKSPACE")
    words.add_argument("searches", nargs="+", metavar="control/0001")
    words.add_argument("out", metavar="OUT.svg")
    asked = words.parse_args()
    if lacking := [one for one in asked.searches if not (asked.workspace / one).is_dir()]:
        words.error(f"{asked.workspace} has no {', '.join(lacking)}.")
    main(asked.workspace, asked.searches, asked.out)
