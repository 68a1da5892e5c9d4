"""Write the newest file of results/ into README.md as tables: `python benchmarks/make_readme.py`; with --check, fail if they differ."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from pymimic.bench.report import call_time, ours, races
from pymimic.bench.shapes import WHATS

HERE = Path(__file__).parent
BEGIN, END = "<!-- made by make_readme.py: begin -->", "<!-- made by make_readme.py: end -->"
TITLES = {
    "forward": "Forward: x to y",
    "step": "Step: forward, loss and all gradients, from x to dV",
    "adamw": "A step with AdamW: all weights updated",
    "serving": "Serving: x to y, one row",
}


def newest(folder: Path) -> dict[str, Any] | None:
    """The results that were measured last."""
    runs = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return max(runs, key=lambda run: run["date"], default=None)


def tables(run: dict[str, Any]) -> str:
    """All of a run in Markdown."""
    machine, ceilings = run["machine"], run["ceilings"]
    peaks = ", ".join(f"{ceilings[dtype]:.0f} in {dtype}" for dtype in ("float32", "float64", "bfloat16") if ceilings[dtype])
    read = ", ".join(f"{rate:.0f} from {int(size) >> 20} MiB" for size, rate in ceilings["read"].items())
    versions = {row["title"]: row["versions"] for row in run["results"]}
    parts = [
        f"{run['date'][:10]}, {machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['instruction_set']}, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}, Python {machine['python']}.",
        f"Measured ceilings: GFLOP/s: {peaks}; GB/s read: {read}; GB/s copied: {ceilings['copy']:.0f}.",
        "Versions: " + ", ".join(f"{title} {version}" for title, version in versions.items()) + ".",
        "Each cell: median time; for pymimic the share of the measured ceiling, for the others their time over that of pymimic's fastest.\n"
        "~: other load on the machine disturbed every turn; the figure is rough.",
    ]
    for what in WHATS:
        rows = [row for row in run["results"] if row["what"] == what]
        if rows:
            parts += [f"### {TITLES[what]}", table(rows, cell)]
    steps = [row for row in run["results"] if row["what"] == "step" and row["peak_bytes"]]
    if steps:
        parts += ["### Peak memory of a step's process, in MiB, arguments, results and libraries included", table(steps, memory)]
    thrown, counted = (sum(row[key] for row in run["results"]) for key in ("discarded", "rounds"))
    parts.append(f"Turns discarded for other load on the machine: {thrown} of {thrown + counted}.")
    return "\n\n".join(parts)


def table(rows: list[dict[str, Any]], text: Any) -> str:
    """A line for each race, a column for each contestant."""
    titles = list(dict.fromkeys(row["title"] for row in rows))
    lines = ["| shape | batch | " + " | ".join(titles) + " |", "|---|---|" + "---|" * len(titles)]
    for group in races(rows):
        cells = {row["title"]: text(row, ours(group)) for row in group}
        lines.append(f"| {group[0]['shape']} | {group[0]['B']} | " + " | ".join(cells.get(title, "") for title in titles) + " |")
    return "\n".join(lines)


def cell(row: dict[str, Any], mine: dict[str, Any] | None) -> str:
    """Time, and what it means."""
    if row["peer"].startswith("pymimic"):
        return f"**{call_time(row)}**, {row['of_ceiling']:.0%}"
    return call_time(row) + (f", {row['seconds'] / mine['seconds']:.2f} x" if mine else "")


def memory(row: dict[str, Any], mine: dict[str, Any] | None) -> str:
    """Peak memory alone."""
    return f"{row['peak_bytes'] / 2**20:.0f}"


def with_tables(text: str, run: dict[str, Any] | None) -> str:
    """A README with the part between the marks made anew."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{tables(run) if run else 'No results yet.'}\n\n{END}{after}"


if __name__ == "__main__":
    readme = HERE / "README.md"
    have = readme.read_text()
    want = with_tables(have, newest(HERE / "results"))
    if "--check" in sys.argv:
        sys.exit(have != want and "README.md: differs from the newest file of results/: run python benchmarks/make_readme.py")
    readme.write_text(want)
