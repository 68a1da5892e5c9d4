"""What the calls of a session consist of, the most wanted first: a call's time may end before its tasks do."""

from __future__ import annotations

from itertools import product
from pathlib import Path

from gpu.session import Task

BUDGETS = {"A": 330.0, "B": 420.0, "rest": 480.0}  # seconds; the first two are for one machine, one after the other
BATCHES = [8192, 512]
GOALS = ("wide-100k", "mnist-8k", "timit-400k")  # shapes with a goal for the step
OTHERS = ("timit-8k", "timit-50k", "letter-4k", "timit-dense", "cifar-30k")
OTHER_PRECISIONS = {"fp16": [512], "tf32": [512], "float32": [512]}
BITS = (("mnist-8k", 512), ("wide-100k", 2048), ("timit-8k", 129))  # shapes and batches
OURS = "pymimic_cuda_bf16"
CAPTURED = {"mnist-8k": "pymimic_cuda_graph_bf16"}  # where the host takes about as long as the device
RIVALS = ("torch_cuda_bf16", "cupy_cuda_bf16")
COMPILED = "torch_compile_cuda_bf16"
COMPILES = 100.0  # seconds that torch.compile may take


def plan(call: str, out: Path, data: str | None = None) -> list[Task]:
    """The tasks of a call; `out` is for files, `data` is the folder with mnist's files, or None."""
    gates = [Task("build", "build:build", limit=200, gate=True), Task("smoke", "smoke:smoke", limit=30, gate=True)]
    return gates + {"A": right_and_fast(out), "B": steps(), "rest": rest(data)}[call]


def right_and_fast(out: Path) -> list[Task]:
    report = {"report": str((out / "kernels.ncu-rep").resolve()), "shape": "k = C = 128", "B": 8192}
    return [
        accuracy("mnist-8k"),
        *(kernels(f"kernels, {shape}", shape, {"bf16": BATCHES}) for shape in ("k = C = 128", "timit-400k")),
        Task("ceilings", "kernels:ceilings", limit=40),
        Task("Nsight Compute", "tools:profile", report),
        Task("memcheck", "tools:sanitizer", {"tool": "memcheck"}),
    ]


def steps() -> list[Task]:
    """torch.compile takes what time there is: all but the first of its tasks come last."""
    rivals = [compiled(shape, B) for shape, B in product(GOALS, BATCHES)]
    bits = [same_bits(shape, B, "bfloat16") for shape, B in BITS]
    ours = [race(shape, peer, BATCHES) for shape in GOALS for peer in (OURS, *filter(None, [CAPTURED.get(shape)]))]
    return [*ours, rivals[0], *bits, *rivals[1:]]


def rest(data: str | None) -> list[Task]:
    kinds = (("cuda", "float32"), ("cuda", "bfloat16"), ("cpu", "float32"))
    return [
        Task("racecheck", "tools:sanitizer", {"tool": "racecheck"}, limit=150),
        Task("pytest", "tools:pytest", {"folder": "tests/cuda"}, limit=240, least=60),
        Task("ways", "ways:ways", {"batches": BATCHES}, limit=120),
        Task("serving", "kernels:serving", {"shapes": [*GOALS, *OTHERS]}, limit=90),
        *(
            Task(f"training, {device}, {dtype}", "train:student", {"device": device, "dtype": dtype, "folder": data}, limit=240, least=30)
            for device, dtype in kinds
        ),
        Task("layers", "checks:layers"),
        *map(accuracy, ("wide-100k", "timit-400k", *OTHERS)),
        *(same_bits(shape, B, "float32") for shape, B in BITS),
        *(same_bits("cifar-30k", 512, dtype) for dtype in ("bfloat16", "float32")),
        *(kernels(f"kernels, {shape}", shape, {"bf16": BATCHES}) for shape in ("wide-100k", "mnist-8k", *OTHERS)),
        *(kernels(f"kernels, other precisions, {shape}", shape, OTHER_PRECISIONS) for shape in GOALS),
        *(race(shape, peer, BATCHES) for shape, peer in product(GOALS, RIVALS)),
        *(race(shape, peer, BATCHES) for shape, peer in product(OTHERS, (OURS, *RIVALS))),
        *(race(shape, peer, BATCHES, ("step", "forward")) for shape, peer in product((*GOALS, *OTHERS), (OURS, *RIVALS))),
        *(race(shape, peer, [512]) for shape, peer in product(("mnist-8k", "timit-8k"), ("pymimic_cuda", "torch_cuda"))),
    ]  # fmt: skip


def accuracy(shape: str) -> Task:
    return Task(f"accuracy, {shape}", "checks:accuracy", {"shape": shape})


def same_bits(shape: str, B: int, dtype: str) -> Task:
    return Task(f"same bits, {shape}, {dtype}", "checks:bits", {"shape": shape, "B": B, "dtype": dtype}, limit=40)


def kernels(name: str, shape: str, batches: dict[str, list[int]]) -> Task:
    return Task(name, "kernels:shallow", {"shape": shape, "batches": batches})


def race(shape: str, peer: str, batches: list[int], whats: tuple[str, ...] = ()) -> Task:
    """AdamW's step, unless `whats` names other work."""
    arguments = {"shape": shape, "peer": peer, "batches": batches, "whats": list(whats or ("adamw",))}
    return Task(", ".join(("step", shape, peer, *whats)), "steps:race", arguments, least=10)


def compiled(shape: str, B: int) -> Task:
    arguments = {"shape": shape, "peer": COMPILED, "batches": [B], "whats": ["adamw"], "patience": COMPILES}
    return Task(f"step, {shape}, {COMPILED}, {B}", "steps:race", arguments, limit=COMPILES, least=30)
