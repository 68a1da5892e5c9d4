"""The figures as a picture: bars that reach towards the ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..packages import package
from ..targets import replacing
from .report import duration, ours, races
from .suite import OURS, Row

_BAR_INCHES, _RACE_INCHES = 0.24, 0.5
_OURS_COLOUR, _OTHERS_COLOUR, _BF16_COLOUR = "#1f6f8b", "#b8b8b8", "#d9a441"


def demand_matplotlib() -> None:
    """Find out before the work that it cannot be drawn."""
    package("plot", "matplotlib")


def draw(result: Row, path: Path) -> None:
    """Write a picture: for each race a bar a contestant, as long as its share of the machine's ceiling; the best possible bar is 100 %.

    Raises
    ------
    ImportError
        matplotlib is not installed.
    OSError
        The picture cannot be written.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    groups: Sequence[list[Row]] = races(result["results"])
    heights = [_RACE_INCHES + _BAR_INCHES * len(group) for group in groups] or [1.0]
    figure, axes = plt.subplots(
        max(1, len(groups)), 1, figsize=(9, sum(heights) + 0.8), squeeze=False, sharex=True, gridspec_kw={"height_ratios": heights}
    )
    for axis, group in zip(axes[:, 0], groups):
        rows = sorted(group, key=lambda row: -float(row["seconds"]))
        mine = ours(group)
        colours = [_colour(row) for row in rows]
        shares = [100 * row["of_ceiling"] for row in rows]
        axis.barh([row["title"] for row in rows], shares, color=colours, height=0.8)
        for place, row in enumerate(rows):
            ratio = f", {row['seconds'] / mine['seconds']:.2f} of pymimic's" if mine and row is not mine else ""
            axis.annotate(f" {duration(row['seconds'])}{ratio}", (shares[place], place), va="center", fontsize=7)
        axis.set_title(f"{rows[0]['shape']}, batch {rows[0]['B']}: {rows[0]['what']}", loc="left", fontsize=9)
        axis.tick_params(labelsize=7)
        axis.axvline(100, color="black", linewidth=0.8)
        axis.spines[["top", "right"]].set_visible(False)
    longest = max([100.0, *(100 * row["of_ceiling"] for row in result["results"])])
    axes[-1, 0].set_xlim(0, 1.25 * longest)
    axes[-1, 0].set_xlabel(
        "% of the measured ceiling, arithmetic or memory, whichever bounds; what is computed twice counts twice", fontsize=8
    )
    machine = result["machine"]
    figure.suptitle(f"{machine['cpu']}, {machine['threads']} threads, {result['date'][:10]}", fontsize=9)
    figure.tight_layout()
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)
    plt.close(figure)


def _colour(row: Row) -> str:
    if row["peer"].startswith(OURS):
        return _OURS_COLOUR
    return _OTHERS_COLOUR if row["precision"] == "float32" else _BF16_COLOUR
