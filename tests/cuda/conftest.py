"""The CUDA backend: on a GPU where there is one, else on the emulated kernels with a stand-in for CuPy (`stub/`)."""

import fcntl
import importlib
import importlib.util
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import emulator
import pytest

import pymimic
import pymimic.backends.cuda
from pymimic import backends
from pymimic.errors import BackendUnavailableError

HERE = Path(__file__).parent
# what of pymimic.backends.cuda imports the binding
OURS = ("backend", "by_cublas", "cublas", "handle", "layers", "operands", "prediction", "serving")


def build_binding() -> Path:
    """csrc/bindings over the emulated kernels, built where something changed since the last time."""
    kernels = emulator.build()
    if importlib.util.find_spec("pybind11") is None:
        raise FileNotFoundError("no pybind11 in this environment: the CUDA binding is NOT tested")
    import pybind11

    folder = emulator.ROOT / "build" / f"cuda-binding-{sys.implementation.cache_tag}"
    folder.mkdir(parents=True, exist_ok=True)
    settings = {"KERNELS": kernels, "Python_EXECUTABLE": sys.executable, "pybind11_DIR": pybind11.get_cmake_dir()}
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        configure = ["cmake", "-S", HERE / "binding", "-B", folder, *(f"-D{name}={value}" for name, value in settings.items())]
        for command in (configure, ["cmake", "--build", folder, "-j2"]):
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return next(folder.glob("_cuda*.so"))


def load(name: str, path: Path):
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def emulated():
    """The binding over the emulator, or None where a GPU makes it needless."""
    try:
        if backends.cuda_devices():
            return None
    except BackendUnavailableError:
        pass
    try:
        return load("emulated._cuda", build_binding())  # pybind11 keeps one module a name
    except FileNotFoundError as error:
        warnings.warn(str(error), stacklevel=1)
        pytest.skip(str(error))


class Launches:
    """The binding, whose launches are captured into graphs as the stand-in's own work is."""

    def __init__(self, core, do):
        self._core, self._do = core, do

        class Predictor(core.Predictor):
            def predict(self, *arguments):
                do(lambda: core.Predictor.predict(self, *arguments))

        self.Predictor = Predictor

    def __getattr__(self, name):
        value = getattr(self._core, name)
        answers = name in ("CheckedArray", "devices", "recent_kernels", "shallow_forward_splits", "update_numbers") or name.endswith(
            ("_plan", "_workspace")
        )
        if answers or name.startswith("_") or not callable(value):
            return value
        return lambda *arguments: self._do(lambda: value(*arguments))


@pytest.fixture
def device(emulated, monkeypatch):
    """cupy, and the backend to go with it."""
    if emulated is not None:
        monkeypatch.syspath_prepend(HERE / "stub")
        for name in _with_cupy():
            monkeypatch.delitem(sys.modules, name)
        for name in OURS:
            monkeypatch.delattr(backends.cuda, name, raising=False)
        launches = Launches(emulated, importlib.import_module("cupy").cuda.do)
        monkeypatch.setitem(sys.modules, "pymimic._cuda", launches)
        monkeypatch.setattr(pymimic, "_cuda", launches, raising=False)
    backends._load.cache_clear()
    import cupy

    from pymimic import _cuda

    yield SimpleNamespace(xp=cupy, core=_cuda, emulated=emulated is not None)
    backends._load.cache_clear()
    if emulated is not None:
        for name in _with_cupy():
            sys.modules.pop(name)  # for good: monkeypatch would bring back what it removes
        for name in OURS:
            vars(backends.cuda).pop(name, None)


def _with_cupy():
    return [name for name in sys.modules if name.split(".")[0] == "cupy" or name.removeprefix("pymimic.backends.cuda.") in OURS]
