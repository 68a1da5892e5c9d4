"""The CUDA kernels in the emulator of csrc/simt: the library that a host compiler makes of them, called with NumPy arrays."""

from __future__ import annotations

import ctypes as ct
import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_dtypes import bfloat16

from pymimic.backends.interface import ACTIVATIONS, Mask, Update

ROOT = Path(__file__).parents[2]
PRECISIONS = ("bf16", "fp16", "tf32", "fp32")
ELEMENTS = {"bf16": bfloat16, "fp16": np.float16, "tf32": np.float32, "fp32": np.float32}
SUCCESS, INVALID_VALUE, LAUNCH_FAILURE = 0, 1, 719
GUARD = 256  # elements before and after each array: NaN, so that what reads them shows


class CMask(ct.Structure):
    """pymimic_mask of kernels/launch.h."""

    _fields_ = (
        ("threshold", ct.c_uint32), ("seed", ct.c_int64), ("offset", ct.c_int64), ("device_seed", ct.c_void_p),
        ("device_offset", ct.c_void_p), ("row", ct.c_int64), ("unit", ct.c_int64),
    )  # fmt: skip


class CPlan(ct.Structure):
    """pymimic_plan."""

    _fields_ = (
        ("kernel", ct.c_char_p), ("row_block", ct.c_int), ("slab", ct.c_int), ("splits", ct.c_int), ("column_chunks", ct.c_int),
        ("in_place", ct.c_int), ("workspace", ct.c_size_t),
    )  # fmt: skip


class CShallow(ct.Structure):
    """pymimic_shallow."""

    _fields_ = (
        ("B", ct.c_int64), ("k", ct.c_int64), ("H", ct.c_int64), ("C", ct.c_int64), ("precision", ct.c_int), ("activation", ct.c_int),
        ("z", ct.c_void_p), ("ldz", ct.c_int64), ("U", ct.c_void_p), ("ldu", ct.c_int64), ("b", ct.c_void_p), ("W", ct.c_void_p),
        ("ldw", ct.c_int64), ("mask", CMask), ("splits", ct.c_int),
    )  # fmt: skip


class CHidden(ct.Structure):
    """pymimic_hidden."""

    _fields_ = (
        ("B", ct.c_int64), ("units", ct.c_int64), ("ld", ct.c_int64), ("precision", ct.c_int), ("activation", ct.c_int), ("mask", CMask),
        ("a", ct.c_void_p), ("b", ct.c_void_p), ("saved", ct.c_void_p), ("saved_precision", ct.c_int),
    )  # fmt: skip


class CUpdate(ct.Structure):
    """mimic::Update<float> of csrc/common/optimizer.h."""

    _fields_ = (("rule", ct.c_int), ("nesterov", ct.c_int), *((name, ct.c_float) for name in (
        "learning_rate", "weight_decay", "momentum", "beta1", "beta2", "epsilon", "step_size", "inverse_correction2")))  # fmt: skip


class CParameter(ct.Structure):
    """pymimic_parameter."""

    _fields_ = (
        ("value", ct.c_void_p), ("slot", ct.c_void_p * 2), ("working", ct.c_void_p), ("ld", ct.c_int64), ("update", CUpdate),
        ("device_update", ct.c_void_p),
    )  # fmt: skip


class CServing(ct.Structure):
    """pymimic_serving."""

    _fields_ = (
        ("B", ct.c_int64), ("D", ct.c_int64), ("k", ct.c_int64), ("H", ct.c_int64), ("C", ct.c_int64), ("weights", ct.c_int),
        ("activation", ct.c_int), ("x", ct.c_void_p), ("mean", ct.c_void_p), ("scale", ct.c_void_p), ("V", ct.c_void_p),
        ("ldv", ct.c_int64), ("U", ct.c_void_p), ("ldu", ct.c_int64), ("W", ct.c_void_p), ("ldw", ct.c_int64), ("V_scale", ct.c_void_p),
        ("U_scale", ct.c_void_p), ("W_scale", ct.c_void_p), ("b", ct.c_void_p), ("c", ct.c_void_p),
    )  # fmt: skip


class CLaunched(ct.Structure):
    """simt_launched of csrc/simt/grid.cpp."""

    _fields_ = (
        ("grid", ct.c_uint * 3), ("threads", ct.c_uint), ("shared_bytes", ct.c_size_t), ("parameter_bytes", ct.c_size_t),
        ("kernel", ct.c_void_p), ("parameters", ct.c_void_p),
    )  # fmt: skip


def c_update(update: Update) -> CUpdate:
    """One step's numbers as the kernels take them."""
    return CUpdate(
        ("sgd", "adamw").index(update.kind), update.nesterov, update.learning_rate, update.weight_decay, update.momentum, update.beta1,
        update.beta2, update.epsilon, update.learning_rate / update.correction1, 1 / update.correction2,
    )  # fmt: skip


def c_mask(mask: Mask) -> CMask:
    """The mask as the kernels take it; the seed keeps its 64 bits."""
    return CMask(mask.threshold, ct.c_int64(mask.seed).value, mask.offset, None, None, mask.row, mask.unit)


class Guarded(NamedTuple):
    """An array between two guards in one buffer."""

    array: np.ndarray
    buffer: np.ndarray

    @property
    def intact(self) -> bool:
        """Whether nobody wrote to the guards."""
        return bool(np.isnan(self.buffer[:GUARD]).all() and np.isnan(self.buffer[-GUARD:]).all())


def guarded(shape: tuple[int, ...], dtype: Any = np.float32, fill: float = np.nan) -> Guarded:
    """An aligned array of `fill` with NaNs before and after it."""
    size = int(np.prod(shape))
    itemsize = np.dtype(dtype).itemsize
    raw = np.empty((size + 2 * GUARD) * itemsize + 16, np.uint8)
    start = -raw.ctypes.data % 16
    buffer = raw[start : start + (size + 2 * GUARD) * itemsize].view(dtype)
    buffer[:] = np.nan
    array = buffer[GUARD : GUARD + size].reshape(shape)
    array[...] = fill
    return Guarded(array, buffer)


def operand(values: np.ndarray, precision: str, more: int = 0) -> np.ndarray:
    """`values` as an operand (rows, ld): rounded to the precision's type, zeros up to ld, `more` columns beyond what is needed."""
    rows, columns = values.shape
    padded = guarded((rows, -(-columns // 16) * 16 + more), ELEMENTS[precision], 0.0).array
    padded[:, :columns] = values.astype(np.float32)
    return padded


def pointer(array: np.ndarray) -> ct.c_void_p:
    """Of its first element."""
    return ct.c_void_p(array.ctypes.data)


class Mutant(NamedTuple):
    """One call site of the vocabulary, and which of its effects is switched off or swapped."""

    site: int
    variant: int
    name: str


class Emulator:
    """The library, its schedule and its mutants."""

    def __init__(self, path: Path) -> None:
        self.lib = ct.CDLL(str(path))
        for name in ("simt_error", "simt_site_name"):
            getattr(self.lib, name).restype = ct.c_char_p
        for name in ("simt_site_visits", "simt_bank_conflicts", "simt_prefetched_bytes"):
            getattr(self.lib, name).restype = ct.c_int64
        self.lib.simt_shared_bytes.restype = ct.c_size_t
        self.seed(0)
        self.compute_capability(80)

    def seed(self, seed: int) -> None:
        """Of the schedules of all launches that follow, which are counted from here on."""
        self.lib.simt_seed(ct.c_uint64(seed))

    def limit_shared(self, bytes_: int) -> None:
        """What a block may ask for in all launches that follow."""
        self.lib.simt_limit_shared(ct.c_size_t(bytes_))

    def compute_capability(self, capability: int) -> None:
        """Of the device whose kernels the launchers choose: 80, or 90 for sm_90a."""
        self.lib.simt_compute_capability(capability)
        self.capability = capability

    def multiprocessors(self, count: int) -> None:
        """Of the device that plans are for."""
        self.lib.simt_multiprocessors(count)

    def error(self) -> str:
        """What went wrong in the launch that failed last."""
        return str(self.lib.simt_error().decode())

    def call(self, name: str, *arguments: Any) -> None:
        """A launcher that must succeed."""
        status = self.status(name, *arguments)
        assert status == SUCCESS, f"{name}: status {status}, {self.error()}"

    def status(self, name: str, *arguments: Any) -> int:
        """What a launcher returns; arrays and structs go as pointers, masks by value, ints as int64, floats as float."""
        return int(getattr(self.lib, name)(*(_argument(a) for a in arguments)))

    def plan(self, name: str, *arguments: Any) -> CPlan:
        """What a launcher will do."""
        function = getattr(self.lib, name)
        function.restype = CPlan
        plan: CPlan = function(*(_argument(a) for a in arguments))
        return plan

    def workspace(self, name: str, *arguments: Any) -> np.ndarray:
        """What the function, of a plan or of a workspace alone, asks for, filled with NaNs."""
        if name.endswith("_plan"):
            nbytes = self.plan(name, *arguments).workspace
        else:
            function = getattr(self.lib, name)
            function.restype = ct.c_size_t
            nbytes = function(*(_argument(a) for a in arguments))
        return guarded((-(-nbytes // 4),)).array

    def grids(self) -> list[tuple[int, int, int]]:
        """Of the launches since `seed`."""
        return [tuple(launch.grid) for launch in self.launches()]

    def launches(self) -> list[CLaunched]:
        """Those since `seed`; their parameters are valid until the next one."""
        found: list[CLaunched] = []
        while self.lib.simt_launch(ct.c_int64(len(found)), ct.byref(launch := CLaunched())):
            found.append(launch)
        return found

    def run_kernels(self, run: bool) -> None:
        """Whether launches that follow run, or are only kept."""
        self.lib.simt_run(int(run))

    def visited(self, *files: str) -> Iterator[Mutant]:
        """The mutants of the sites that were visited since `forget_visits`, of these files or of all."""
        for site in range(self.lib.simt_sites()):
            name = self.lib.simt_site_name(site).decode()
            if self.lib.simt_site_visits(site) and (not files or name.split(":")[0] in files):
                for variant in range(self.lib.simt_site_variants(site)):
                    yield Mutant(site, variant, f"{name} {variant}")

    def forget_visits(self) -> None:
        """Starts counting anew."""
        self.lib.simt_forget_visits()

    def mutate(self, mutant: Mutant | None) -> None:
        """Switches one mutant on, or with None all of them off."""
        self.lib.simt_mutate(*((mutant.site, mutant.variant) if mutant else (-1, 0)))

    def survivors(self, mutants: Iterable[Mutant], holds: Callable[[], bool]) -> list[str]:
        """The names of those with which, one at a time, it still holds."""
        alive = []
        for mutant in mutants:
            self.mutate(mutant)
            if holds():
                alive.append(mutant.name)
        self.mutate(None)
        return alive

    def bank_conflicts(self) -> int:
        """Extra passes over shared memory that load_matrices took since the last call."""
        return int(self.lib.simt_bank_conflicts())

    def prefetched_bytes(self) -> int:
        """What kernels asked the second-level cache for since the last call."""
        return int(self.lib.simt_prefetched_bytes())


def _argument(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return pointer(value)
    if isinstance(value, ct.Structure) and not isinstance(value, CMask):  # a mask goes by value
        return ct.byref(value)
    if isinstance(value, int):
        return ct.c_int64(value)
    return ct.c_float(value) if isinstance(value, float) else value


def shallow(
    z: np.ndarray,
    U: np.ndarray,
    b: np.ndarray,
    W: np.ndarray,
    precision: str,
    activation: str,
    mask: Mask,
    size: dict[str, int],
    splits: int = 0,
) -> CShallow:
    """The problem of padded operands; it does not keep the arrays alive."""
    return CShallow(
        size["B"], size["k"], size["H"], size["C"], PRECISIONS.index(precision), ACTIVATIONS.index(activation), z.ctypes.data, z.shape[1],
        U.ctypes.data, U.shape[1], b.ctypes.data, W.ctypes.data, W.shape[1], c_mask(mask), splits,
    )  # fmt: skip


def build() -> Path:
    """Compiles what has changed since the last time; $PYMIMIC_SIMT_SANITIZE is that of -fsanitize. Raises where there is no compiler."""
    sanitize = os.environ.get("PYMIMIC_SIMT_SANITIZE", "")
    for tool in ("cmake", os.environ.get("CXX", "c++")):
        if shutil.which(tool) is None:
            raise FileNotFoundError(f"no {tool} on this machine: the CUDA kernels are NOT tested")
    folder = ROOT / "build" / f"simt{'-' + sanitize.replace(',', '-') if sanitize else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for command in (
            ["cmake", "-S", ROOT / "csrc" / "simt", "-B", folder, f"-DSANITIZE={sanitize}"],
            ["cmake", "--build", folder, "-j2"],
        ):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode != 0:
                raise RuntimeError(f"{done.stdout}\n{done.stderr}")
    return folder / "libmimic_simt.so"
