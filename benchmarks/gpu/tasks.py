"""What each part of the session consists of, the most wanted first: a part's time may end before its tasks do."""

from __future__ import annotations

from gpu.session import Task

PARTS = ("build", "test", "bench", "train")
BATCHES = [512, 8192]
GOALS = ("mnist-8k", "wide-100k", "timit-400k")  # shapes with a goal for the step
OTHERS = ("timit-8k", "timit-50k", "letter-4k", "timit-dense", "cifar-30k")
WHATS = ["step", "adamw", "forward"]
OURS = "pymimic_cuda_bf16"
RIVALS = ("torch_cuda_bf16", "cupy_cuda_bf16")
COMPILED = "torch_compile_cuda_bf16"
OTHER_PRECISIONS = {"fp16": [512], "tf32": [512], "float32": [512]}


def tasks(part: str, data: str | None = None) -> list[Task]:
    """The tasks of a part; `data` is the folder with mnist's files, or None."""
    return {"build": build, "test": test, "bench": bench}[part]() if part != "train" else train(data)


def build(in_place: bool = True) -> list[Task]:
    return [Task("build", "tools:build", {"in_place": in_place}, limit=500)]


def test() -> list[Task]:
    return [
        Task("layers", "checks:layers", limit=90),
        *(Task(f"accuracy, {shape}", "checks:accuracy", {"shape": shape}, limit=90) for shape in (*GOALS, *OTHERS)),
        Task("tests/cuda", "tools:pytest", {"folder": "tests/cuda"}, limit=240, least=60),
        *(
            Task(f"same bits, {shape}, {dtype}", "checks:bits", {"shape": shape, "B": B, "dtype": dtype}, limit=90)
            for shape, B in (("mnist-8k", 512), ("timit-8k", 129), ("wide-100k", 2048), ("cifar-30k", 512))
            for dtype in ("bfloat16", "float32")
        ),
        *(Task(tool, "tools:sanitizer", {"tool": tool}, limit=150, least=45) for tool in ("memcheck", "racecheck")),
    ]


def bench() -> list[Task]:
    return [
        Task("ceilings", "kernels:ceilings", limit=90),
        *map(kernels, ("k = C = 128", *GOALS)),
        *(race(shape, peer) for shape in GOALS for peer in (OURS, *RIVALS)),
        Task("ways", "ways:ways", {"batches": BATCHES}, limit=120),
        Task("serving", "kernels:serving", {"shapes": [*GOALS, *OTHERS]}, limit=90),
        *(compiled(shape, B) for shape, B in (("mnist-8k", 8192), ("wide-100k", 8192), ("timit-400k", 8192), ("timit-400k", 512))),
        *map(kernels, OTHERS),
        *(race(shape, peer) for shape in OTHERS for peer in (OURS, *RIVALS)),
        *(race(shape, peer, [512]) for shape in ("mnist-8k", "timit-8k") for peer in ("pymimic_cuda", "torch_cuda")),
        *(compiled(shape, 512) for shape in ("mnist-8k", "wide-100k")),
    ]


def kernels(shape: str) -> Task:
    arguments = {"shape": shape, "batches": BATCHES, "precisions": OTHER_PRECISIONS}
    return Task(f"kernels, {shape}", "kernels:shallow", arguments, limit=90)


def race(shape: str, peer: str, batches: list[int] = BATCHES) -> Task:
    arguments = {"shape": shape, "peer": peer, "batches": batches, "whats": WHATS}
    return Task(f"step, {shape}, {peer}", "steps:race", arguments, limit=120, least=15)


def compiled(shape: str, B: int) -> Task:
    arguments = {"shape": shape, "peer": COMPILED, "batches": [B], "whats": WHATS}
    return Task(f"step, {shape}, {B}, {COMPILED}", "steps:race", arguments, limit=240, least=100)


def train(data: str | None) -> list[Task]:
    kinds = (("cuda", "float32"), ("cuda", "bfloat16"), ("cpu", "float32"))
    return [
        Task(f"{device}, {dtype}", "train:student", {"device": device, "dtype": dtype, "folder": data}, limit=300, least=30)
        for device, dtype in kinds
    ]
