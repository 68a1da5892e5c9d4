"""The tables of docs/inside/gpu.md: the work of all kernels, and the calls that are made of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from gpu_model import ROOT
from gpu_model.counts import Blocks, Counts
from gpu_model.launches import ALL_KEPT, HALF_KEPT, Launchers, Shape
from gpu_model.one_pass import slabs, ways
from gpu_model.rates import Call, memory_bytes
from gpu_model.steps import Step
from gpu_model.units import LANES_A_CYCLE, RATE, UNITS
from pymimic.bench.shapes import SHAPES

BATCHES = (8192, 512)
WIDE = "k = C = 128"
GOALS = {
    WIDE: Shape(128, 100_000, 128),
    **{name: Shape(SHAPES[name].rank, SHAPES[name].H, SHAPES[name].C) for name in ("wide-100k", "timit-400k", "mnist-8k")},
}  # fmt: skip
OPS = {"forward": "forward", "rows": "rows", "units": "units", "step": "units, AdamW"}
BACKWARD, STEP = ("rows", "units"), ("forward", "rows", "step")
RATE_GOALS = {"forward": (0.70, 0.65), "backward": (0.60, 0.55)}  # of RATE, at BATCHES, for WIDE and timit-400k
STEP_GOALS = {("wide-100k", 8192): 2.5, ("mnist-8k", 8192): 2.5, ("timit-400k", 8192): 1.2, ("timit-400k", 512): 1.35}
MEASURED = ROOT / "benchmarks" / "results" / "gpu"


class Model(NamedTuple):
    """The work of all kernels, and the calls that are made of it."""

    work: dict[tuple[str, str, int], Blocks]  # by kernel, shape, threshold of the mask
    calls: dict[tuple[str, str, int, int], Call]  # by kernel, shape, batch, threshold


def model() -> Model:
    """Compiles the kernels; raises what sass_report's `find_tools` does."""
    launchers = Launchers()
    counts, work, calls = Counts(launchers), {}, {}
    for op in OPS:
        for name, shape in GOALS.items():
            for threshold in (ALL_KEPT, HALF_KEPT):
                work[op, name, threshold] = counts.blocks(op, shape, threshold)
                for B in BATCHES:
                    grid = launchers.launch(op, B, shape, threshold).grid
                    blocks = grid[0] * grid[1] * grid[2]
                    calls[op, name, B, threshold] = Call(op, B, shape, launchers.plan(op, B, shape), blocks, work[op, name, threshold])
    return Model(work, calls)


def measured() -> dict[tuple[str, str, int], float]:
    """Operations a second by kernel, shape and batch, from the newest session of benchmarks/gpu_session.py that is kept."""
    sessions = sorted(MEASURED.glob("*.json"))
    records = json.loads(sessions[-1].read_text())["tasks"].values() if sessions else ()
    rows = [row for record in records for row in record["rows"] if row.get("precision") == "bf16" and "gflops" in row]
    return {(row["kernel"], row["shape"], row["B"]): row["gflops"] * 1e9 for row in rows}


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """In Markdown."""
    lines = [list(header), *map(list, rows)]
    lines.insert(1, ["---"] * len(lines[0]))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def percent(part: float) -> str:
    """For people."""
    return f"{100 * part:.0f} %"


def number(value: float) -> str:
    """Without decimals."""
    return f"{value:,.0f}"


def counts_table(found: Model) -> str:
    """A slab's instructions and bytes."""
    header = ("kernel", "shape", "dropout", "products", "multiply-adds", *LANES_A_CYCLE, "shared memory, bytes", "L2, bytes")
    keys = ("products", "multiply-adds", *LANES_A_CYCLE, "shared", "L2")
    return table(header, (
        (OPS[op], name, "no" if threshold == ALL_KEPT else "yes", *(number(blocks.slab.get(key, 0)) for key in keys))
        for (op, name, threshold), blocks in found.work.items()
    ))  # fmt: skip


def cycles_table(found: Model) -> str:
    """A slab's cycles, the tightest in bold, and those of a block's beginning and end."""
    rows = []
    for (op, name, B, threshold), call in found.calls.items():
        if BATCHES[0] == B:
            slab, rest = call.slab_cycles, call.rest_cycles
            cells = [f"**{number(slab[unit])}**" if unit == call.unit else number(slab[unit]) for unit in UNITS]
            last = max(rest, key=lambda unit: rest[unit])
            dropout = "no" if threshold == ALL_KEPT else "yes"
            rows.append((OPS[op], name, dropout, *cells, f"{number(rest[last])} ({last})"))
    return table(("kernel", "shape", "dropout", *UNITS, "begin and end of a block"), rows)


def rates_table(found: Model) -> str:
    """Predicted rates, and measured ones."""
    seen, rows = measured(), []
    for (op, name, B, threshold), call in found.calls.items():
        if threshold != ALL_KEPT:
            continue
        dropped = found.calls[op, name, B, HALF_KEPT]
        real = seen.get((op, name, B))
        rows.append((
            OPS[op], name, str(B), f"{call.needed / 1e12:.3g}", f"{2 * call.total('multiply-adds') / 1e12:.3g}", f"{call.plan.splits}",
            f"{call.blocks:,}", str(call.waves), f"{call.plan.workspace / 1e6:.0f}",
            f"{memory_bytes(op, B, call.shape, call.plan) / 1e6:.0f}", f"{call.total('L2') / 1e9:.1f}", f"{call.total('shared') / 1e9:.0f}",
            f"{call.rate(True) * RATE / 1e12:.0f}", f"{percent(call.rate(False))} to {percent(call.rate(True))}",
            f"{percent(dropped.rate(False))} to {percent(dropped.rate(True))}", call.limit, dropped.limit,
            f"{real / 1e12:.0f} ({percent(real / RATE)})" if real else "",
        ))  # fmt: skip
    return table((
        "kernel", "shape", "B", "TFLOP needed", "executed", "parts of H", "blocks", "waves", "parts, MB", "HBM, MB", "L2, GB",
        "shared memory, GB", "predicted, at most: TFLOP/s", f"of {RATE / 1e12:.0f}", "with dropout", "what costs most", "with dropout",
        "measured: TFLOP/s",
    ), rows)  # fmt: skip


def factors_table(found: Model) -> str:
    """What the predicted rate is a product of."""
    rows = []
    for (op, name, B, threshold), call in found.calls.items():
        if threshold == ALL_KEPT:
            padding, waves, unit, rest, memory = call.factors.values()
            cells = [padding, waves, rest, memory]
            rows.append(
                (OPS[op], name, str(B), percent(padding), percent(waves), f"{percent(unit)} ({call.unit})", *map(percent, cells[2:]))
            )
    header = (
        "kernel",
        "shape",
        "B",
        "padding, products made twice",
        "waves",
        "a slab's tightest unit",
        "begin and end of blocks",
        "HBM, sum",
    )
    return table(header, rows)


def backward(found: Model, name: str, B: int, overlap: bool) -> float:
    """Of RATE: both kernels of a backward pass."""
    calls = [found.calls[op, name, B, ALL_KEPT] for op in BACKWARD]
    return sum(call.needed for call in calls) / sum(call.seconds(overlap) for call in calls) / RATE


def goals_table(found: Model) -> str:
    """Rates that are asked for."""
    rows = []
    for name in (WIDE, "timit-400k"):
        for number_, B in enumerate(BATCHES):
            forward, worse = found.calls["forward", name, B, ALL_KEPT], [found.calls[op, name, B, ALL_KEPT] for op in BACKWARD]
            slower = min(worse, key=lambda call: call.rate(True))
            for what, low, high, limit in (
                ("forward", forward.rate(False), forward.rate(True), forward.limit),
                ("backward", backward(found, name, B, False), backward(found, name, B, True), f"{OPS[slower.op]}: {slower.limit}"),
            ):
                goal = RATE_GOALS[what][number_]
                rows.append((what, name, str(B), percent(goal), f"{percent(low)} to {percent(high)}", verdict(goal, low, high), limit))
    return table(("pass", "shape", "B", "goal", "predicted", "goal met", "what costs most"), rows)


def steps_table(found: Model) -> str:
    """Steps of AdamW beside torch.compile."""
    rows = []
    for name in ("wide-100k", "mnist-8k", "timit-400k"):
        for B in BATCHES:
            step = Step(name, B, SHAPES[name].D, [found.calls[op, name, B, ALL_KEPT] for op in STEP])
            ours, torch = [step.ours(overlap) for overlap in (True, False)], [step.torch(slow) for slow in (False, True)]
            goal, ratios = STEP_GOALS.get((name, B)), (torch[0] / ours[1], torch[1] / ours[0])
            rows.append((
                name, str(B), f"{ours[0] * 1e3:.2f} to {ours[1] * 1e3:.2f}", f"{torch[0] * 1e3:.2f} to {torch[1] * 1e3:.2f}",
                percent(step.torch_products), f"{ratios[0]:.1f} to {ratios[1]:.1f}", f"{goal}" if goal else "",
                verdict(goal, *ratios) if goal else "", f"{OPS[step.longest.op]}: {step.longest.limit}",
            ))  # fmt: skip
    return table((
        "shape", "B", "ours, ms", "torch.compile, ms", "of which products bind", "ratio", "goal", "goal met", "our longest call, its cost",
    ), rows)  # fmt: skip


def ways_table(found: Model, name: str, B: int) -> str:
    """A backward pass in two kernels and in one."""
    rows, units = (found.calls[op, name, B, ALL_KEPT] for op in BACKWARD)
    H, lines = rows.shape.H, []
    for way in ways(rows, units):
        total, cycles = slabs(B, H), way.cycles
        tightest = max(cycles, key=lambda unit: cycles[unit])
        cells = [f"**{number(cycles[unit])}**" if unit == tightest else number(cycles[unit]) for unit in cycles]
        lines.append((
            way.name, f"{2 * way.multiply_adds * total / 1e12:.2f}", f"{way.shared * total / 1e9:,.0f}", f"{way.l2 * total / 1e9:.0f}",
            f"{way.dz_sums * total / 1e9:.0f}", *cells, f"{way.seconds(B, H) * 1e3:.1f}",
        ))  # fmt: skip
    header = ("way", "TFLOP", "shared memory, GB", "L2, GB", "of it sums of dz", "tensor, cycles", "shared", "L2", "at least, ms")
    return table(header, lines)


def verdict(goal: float, low: float, high: float) -> str:
    """Of a predicted range."""
    return "yes" if low >= goal else "perhaps" if high >= goal else "no"
