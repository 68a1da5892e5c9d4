"""The figures as tables on a terminal: one a race, and one of all races for those who only glance."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from ..tables import print_table
from .suite import OURS, Row

_MIB = 1 << 20


def ours(rows: Sequence[Row], precision: str = "float32") -> Row | None:
    """The fastest row of this library at that precision, of one race."""
    return min((row for row in rows if row["peer"].startswith(OURS) and row["precision"] == precision), key=_seconds, default=None)


def best_peer(rows: Sequence[Row], precision: str = "float32") -> Row | None:
    """The fastest of the others at that precision, of one race."""
    return min((row for row in rows if not row["peer"].startswith(OURS) and row["precision"] == precision), key=_seconds, default=None)


def races(rows: Sequence[Row]) -> list[list[Row]]:
    """Rows of one race together, in the order in which they were run."""
    grouped: dict[tuple[object, ...], list[Row]] = {}
    for row in rows:
        grouped.setdefault((row["shape"], row["B"], row["what"]), []).append(row)
    return list(grouped.values())


def duration(seconds: float) -> str:
    """Three digits with the unit that suits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size or unit == "us":
            return f"{seconds / size:#.3g}".rstrip(".") + f" {unit}"
    raise AssertionError


def call_time(row: Row) -> str:
    """What a call took, about so much where other load disturbed every turn."""
    return ("" if row["quiet"] else "~") + duration(row["seconds"])


def turns(rows: Sequence[Row]) -> str:
    """How many turns the contestants of a race had, and how many more were discarded."""
    counted = [row["rounds"] for row in rows]
    least, most = min(counted), max(counted)
    text = f"{least}{f' to {most}' if most > least else ''} turn{'s' if most > 1 else ''} each"
    discarded = sum(row["discarded"] for row in rows)
    return text + (f", {discarded} of {discarded + sum(counted)} discarded for other load" if discarded else "")


def show_machine(console: Console, head: Row) -> None:
    """What it was measured on, and the ceilings."""
    machine, ceilings = head["machine"], head["ceilings"]
    console.print(f"[bold]{machine['cpu']}[/], {machine['cores']} cores, {machine['threads']} threads, {machine['instruction_set']}")
    if "device" in machine:
        console.print(f"[bold]{machine['device']}[/]", highlight=False)
    peaks = ", ".join(f"{dtype} {ceilings[dtype]:.0f}" for dtype in ("float32", "float64", "bfloat16") if ceilings[dtype])
    read = ", ".join(f"{rate:.0f} ({int(size) / _MIB:.0f} MiB)" for size, rate in ceilings["read"].items())
    console.print(f"measured ceilings: GFLOP/s: {peaks}; GB/s read: {read}; GB/s copy: {ceilings['copy']:.0f}")
    if head["fast"]:
        console.print("[yellow]--fast: small sizes and hardly any time; the figures mean nothing[/]")


def show_race(console: Console, rows: Sequence[Row]) -> None:
    """One table: who is faster, by how much, and how far from the ceiling."""
    if not rows:
        return
    first, mine = rows[0], ours(rows)
    sizes = ", ".join(f"{name}={first[name] if first[name] is not None else 'none'}" for name in "BDkHC")
    console.print(f"\n[bold]{first['shape']}: {first['what']}[/]  {sizes}  ({turns(rows)})", highlight=False)
    if not all(row["quiet"] for row in rows):
        console.print("[red]~: other load disturbed every turn[/]", highlight=False)
    cells = []
    for row in sorted(rows, key=_seconds):
        ratio = row["seconds"] / mine["seconds"] if mine else float("nan")
        colour = "cyan" if row["peer"].startswith(OURS) else "green" if ratio > 1 else "red"
        peak = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / _MIB:.0f}"
        cells.append([
            f"[{colour}]{row['title']}[/]", call_time(row), f"±{(row['high'] - row['low']) / 2 / row['seconds']:.0%}",
            f"{row['gflops']:.1f}", f"{row['gbps']:.1f}", f"{row['of_ceiling']:.0%} {row['bound']}", f"[{colour}]{ratio:.2f}[/]", peak,
        ])  # fmt: skip
    print_table(console, ("", "median", "spread", "GFLOP/s", "GB/s", "ceiling", "ratio", "MiB"), cells)


def show_summary(console: Console, rows: Sequence[Row], skipped: Sequence[Row]) -> None:
    """One line a race, then who was left out."""
    console.print("\n[bold]pymimic beside the best of the others, in float32[/]")
    cells = []
    for group in races(rows):
        mine, other = ours(group), best_peer(group)
        if mine is None or other is None:
            continue
        ratio = other["seconds"] / mine["seconds"]
        cells.append([
            mine["shape"], str(mine["B"]), mine["what"], call_time(mine), f"{mine['of_ceiling']:.0%}", other["title"], call_time(other),
            f"[{'bold green' if ratio >= 1 else 'bold red'}]{ratio:.2f} x[/]",
        ])  # fmt: skip
    if cells:
        print_table(console, ("shape", "batch", "work", "pymimic", "ceiling", "best other", "takes", "speedup"), cells, keys=3)
    for row in skipped:
        console.print(f"[yellow]skipped:[/] {row['shape']}, batch {row['B']}, {row['what']}: {row['peer']}: {row['why']}", highlight=False)


def _seconds(row: Row) -> float:
    return float(row["seconds"])
