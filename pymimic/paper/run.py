"""Experiments by name, one after the other, and the report of all that are in a folder."""

from __future__ import annotations

import warnings
from contextlib import ExitStack
from pathlib import Path

from .. import __version__, _check
from ..devices import DEVICES
from . import report
from .cifar10 import CIFAR10, CIFAR10Full
from .compress import CompressLetter, CompressMNIST
from .experiment import Experiment, perform
from .figures import Figures
from .letter import Letter
from .mnist import MNIST
from .mnist1d import MNIST1D
from .speech import LEFT_OUT, Speech
from .timit import SyntheticTimit, Timit

_EXPERIMENTS: tuple[type[Experiment], ...] = (
    MNIST1D, Letter, MNIST, CIFAR10, CIFAR10Full, CompressLetter, CompressMNIST, Speech, *LEFT_OUT, Timit, SyntheticTimit,
)  # fmt: skip
NAMES = (*dict.fromkeys(kind.group for kind in _EXPERIMENTS), "all")


def run_paper(
    which: str, out: Path, path: Path | None = None, *, seeds: int | None = None, fast: bool = False, device: str = "cpu"
) -> Path:
    """Run an experiment, or all, and write the report; returns where it is.

    Parameters
    ----------
    which : "mnist1d", "letter", "mnist", "cifar10", "compress", "speech", "timit", "timit-synthetic", or "all", which is all but the
        last three
    out : folder for CSV files, pictures and `report.html`; what is done there already is not done again
    path : folder with the publisher's files, which mnist1d and timit-synthetic do without, or with folders of those names
    seeds : each run is made with the seeds 0 to seeds - 1; None: 5, and of what takes long 3 or 1
    fast : a few hundred rows and few epochs
    device : "cpu" or "cuda", where nets are trained; cifar10 is reduced on the CPU

    Raises
    ------
    ValueError, OSError
        A wrong argument; files that are missing or malformed; files of other kinds in `out` in the place of those to be written. As
        BlockingIOError, another process runs one of the experiments in `out`.
    ImportError
        Jinja2, matplotlib, scikit-learn or, for cifar10, torch is missing; the message says what to install.
    """
    if which not in NAMES:
        raise ValueError(f"which: expected one of {', '.join(NAMES)}, got {which!r}")
    if not _check.one_of(device, DEVICES):
        raise ValueError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    if seeds is not None:
        seeds = _check.integer("seeds", seeds, 1, 1 << 31)
    report.demand_packages()
    report.demand_page_or_none(out / "report.html")
    experiments = [kind(out, fast, device, path) for kind in _EXPERIMENTS]
    chosen = [
        experiment
        for experiment in experiments
        if which in (experiment.group, "all" if experiment.in_all else None) and device in experiment.devices
    ]
    for experiment in chosen:
        experiment.demand()
    out.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        for experiment in chosen:
            stack.enter_context(experiment.held())
        for experiment in experiments:
            if experiment in chosen or experiment.begun:  # the report is of all that there are
                experiment.open()
        stack.enter_context(warnings.catch_warnings())
        if fast:
            warnings.filterwarnings("ignore", ".*: expected a loss below")  # so few steps teach nothing
        for experiment in chosen:
            perform(experiment, seeds or experiment.seeds)
    there = [experiment for experiment in experiments if experiment.begun]
    figures = Figures({experiment.name: experiment.open().lines for experiment in there})
    about = f"Written by pymimic {__version__}{', --fast: figures that say nothing' * fast}."
    report.write(out / "report.html", figures, [report.section(experiment) for experiment in there], about)
    return out / "report.html"
