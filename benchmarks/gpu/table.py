"""A session's results as text."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from gpu.tasks import OURS

Row = dict[str, Any]
Tasks = dict[str, Any]
CHECKED = ("accuracy", "layers", "same bits", "pytest", "memcheck", "racecheck")  # their names begin so


def table(state: dict[str, Any], left: dict[str, list[str]]) -> str:
    """What was found, what failed, and what is left of each call."""
    sections = (build, smoke, ceilings, checks, profile, kernels, ways, serving, steps, training, failures)
    texts = ["\n".join(section(state["tasks"])) for section in sections]
    texts.append("\n".join(f"left for the next time, {call}: {'; '.join(names)}" for call, names in left.items() if names))
    return "\n\n".join(filter(None, texts)) + "\n"


def rows(tasks: Tasks, begin: str) -> list[Row]:
    """Those of the tasks whose names begin so."""
    return [row for name, record in tasks.items() if name.startswith(begin) for row in record["rows"]]


def build(tasks: Tasks) -> Iterator[str]:
    for row in rows(tasks, "build"):
        if row["built"]:
            slowest = ", ".join(f"{unit} {seconds:.0f} s" for unit, seconds in row["slowest"].items())
            yield f"Build: {row['compiler']}; configured in {row['configure_seconds']} s, built in {row['build_seconds']} s ({slowest})"


def smoke(tasks: Tasks) -> Iterator[str]:
    for row in rows(tasks, "smoke"):
        if "driver" in row:
            yield f"Driver {row['driver']}, runtime {row['runtime']}, {row['device']}"
        else:
            for kernel in row["kernels"]:
                yield (
                    f"    {kernel['name'][:60]:60} ptxVersion {kernel['ptxVersion']}, binaryVersion {kernel['binaryVersion']}, "
                    f"numRegs {kernel['numRegs']}"
                )
            if not row["ok"]:
                yield f"    {row['call']}: WRONG: errors {row['errors']}, bound {row['bound']}"


def found_ceilings(tasks: Tasks) -> Row:
    """Of the three rows of that task, as one."""
    return {key: value for row in rows(tasks, "ceilings") for key, value in row.items()}


def ceilings(tasks: Tasks) -> Iterator[str]:
    found = found_ceilings(tasks)
    if "machine" in found:
        versions = ", ".join(f"{name} {version}" for name, version in found["machine"]["versions"].items())
        yield f"Machine: {found['machine'].get('device')}; {found['machine']['cpu']}, {found['machine']['cores']} cores; {versions}"
    if "gemm_bf16" in found:
        yield f"Ceilings: bf16 product {found['gemm_bf16'] / 1e3:.0f} TFLOP/s, copy {found['copy']:.0f} GB/s read and written"


def checks(tasks: Tasks) -> Iterator[str]:
    for name, record in ((name, record) for name, record in tasks.items() if name.startswith(CHECKED)):
        for row in record["rows"]:
            if "passed" in row:
                yield f"{name}: {row['passed']} passed, {row['skipped']} skipped, {len(row['failed'])} failed"
                yield from (f"    {test}: {message.splitlines()[0] if message else ''}" for test, message in row["failed"])
            elif "tool" in row:
                yield f"{row['tool']}: {row.get('skipped') or row['summary']}"
        judged = [row for row in record["rows"] if "ok" in row and "passed" not in row and "tool" not in row]
        if judged:
            wrong = [row for row in judged if not row["ok"]]
            yield f"{name}: {len(judged) - len(wrong)} of {len(judged)} right"
            yield from (f"    wrong: {row}" for row in wrong)


def profile(tasks: Tasks) -> Iterator[str]:
    for row in rows(tasks, "Nsight Compute"):
        yield f"Nsight Compute: {row.get('skipped') or row['report']}"
        for name, metrics in row.get("kernels", {}).items():
            yield f"    {name[:40]:40} " + ", ".join(f"{metric} {value}" for metric, value in metrics.items())


def kernels(tasks: Tasks) -> Iterator[str]:
    found = rows(tasks, "kernels")
    peak = found_ceilings(tasks).get("gemm_bf16")
    if found:
        yield f"{'kernel':8} {'shape':12} {'batch':>5} {'type':8} {'time':>10} {'TFLOP/s':>8} {'of GEMM':>8} {'workspace':>10}"
    for row in found:
        share = f"{row['gflops'] / peak:.0%}" if peak and row["precision"] in ("bf16", "fp16") else ""
        yield (
            f"{row['kernel']:8} {row['shape']:12} {row['B']:5} {row['precision']:8} {duration(row['seconds']):>10} "
            f"{row['gflops'] / 1e3:8.1f} {share:>8} {mebibytes(row['workspace_bytes']):>10}"
        )


def ways(tasks: Tasks) -> Iterator[str]:
    """x: the time over that of the kernels."""
    found = rows(tasks, "ways")
    kernels_take = {(row["k"], row["C"], row["dtype"], row["B"]): row["seconds"] for row in found if row["way"] == "kernels"}
    if found:
        yield f"{'forward, backward by':21} {'type':8} {'k':>5} {'C':>5} {'batch':>5} {'time':>10} {'x':>6} {'error':>8}"
    for row in found:
        base = kernels_take.get((row["k"], row["C"], row["dtype"], row["B"]))
        times = f"{row['seconds'] / base:.2f}" if base else ""
        yield (
            f"{row['way']:21} {row['dtype']:8} {row['k']:5} {row['C']:5} {row['B']:5} {duration(row['seconds']):>10} "
            f"{times:>6} {max(row['errors'].values()):8.1g}{'' if row['ok'] else '  WRONG'}"
        )


def serving(tasks: Tasks) -> Iterator[str]:
    found = rows(tasks, "serving")
    if found:
        yield f"{'serving':21} {'rows':>5} {'type':8} {'time':>10} {'GB/s':>8}"
    for row in found:
        wrong = "" if row["ok"] else f"  WRONG by {row['error']:.2g}"
        yield f"{row['shape']:21} {row['B']:5} {row['weights']:8} {duration(row['seconds']):>10} {row['gbps']:8.0f}{wrong}"


def steps(tasks: Tasks) -> Iterator[str]:
    """x: the time over that of this library in bfloat16."""
    found = rows(tasks, "step")
    ours = {(row["shape"], row["B"], row["what"]): row["seconds"] for row in found if row["peer"] == OURS}
    if found:
        yield f"{'what':8} {'shape':12} {'batch':>5} {'contestant':20} {'time':>10} {'x':>6} {'host':>10} {'memory':>10} {'error':>8}"
    for row in sorted(found, key=lambda row: (row["what"], row["shape"], row["B"], row["seconds"])):
        base = ours.get((row["shape"], row["B"], row["what"]))
        times = f"{row['seconds'] / base:.2f}" if base else ""
        yield (
            f"{row['what']:8} {row['shape']:12} {row['B']:5} {row['title']:20} {duration(row['seconds']):>10} {times:>6} "
            f"{duration(row['host_seconds']):>10} {mebibytes(row['held_bytes']):>10} {max(row['errors'].values()):8.1g}"
            f"{'' if row['ok'] else '  WRONG'}"
        )


def training(tasks: Tasks) -> Iterator[str]:
    found = rows(tasks, "training")
    if found:
        what = "MNIST" if found[0]["data"] == "mnist" else "a generated set of mnist's sizes, as MNIST was not at hand"
        yield f"Training the mnist student on {what}; logits against those of the CPU's student:"
    exact = next((row["logits"] for row in found if row["device"] == "cpu"), None)
    for row in found:
        off = "" if exact is None or row["logits"] is exact else f", logits off by {distance(row['logits'], exact):.2g}"
        yield (
            f"    {row['device']}, {row['dtype']}: {row['seconds']:.1f} s for {row['epochs']} epochs, last train loss "
            f"{row['train_losses'][-1]:.6g}, test accuracy {row['test_accuracy']:.4f} (teacher {row['teacher_accuracy']:.4f}){off}"
        )


def failures(tasks: Tasks) -> Iterator[str]:
    for name, record in tasks.items():
        if record["status"] != "ok":
            yield f"NOT FINISHED: {name}: {record['error']} ({len(record['rows'])} rows before that)"
        if "left out" in record:
            yield f"LEFT OUT of {name}, as such calls hung: {', '.join(record['left out'])}"


def duration(seconds: float) -> str:
    unit, factor = ("s", 1.0) if seconds >= 1 else ("ms", 1e3) if seconds >= 1e-3 else ("us", 1e6)
    return f"{seconds * factor:.3g} {unit}"


def mebibytes(count: int) -> str:
    return f"{count / 2**20:.0f} MiB"


def distance(got: list[list[float]], expected: list[list[float]]) -> float:
    """Euclidean, relative."""
    pairs = [(a, b) for first, second in zip(got, expected) for a, b in zip(first, second)]
    return math.sqrt(sum((a - b) ** 2 for a, b in pairs) / (sum(b * b for _, b in pairs) or 1.0))
