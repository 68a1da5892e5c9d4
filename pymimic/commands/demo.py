"""`pymimic demo`: the main job on a set that is at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..files import demand_kind_or_none
from ..formats import demand_json_or_none, demand_png_or_none
from ..targets import demand_distinct, demand_writable, expanded


def demo(
    data: Annotated[str, typer.Option(metavar="mnist1d|letter|mnist", help="set of labelled rows")] = "mnist1d",
    path: Annotated[Path | None, typer.Option(metavar="DIR", help="folder with the publisher's files, which letter and mnist need")] = None,
    fast: Annotated[bool, typer.Option("--fast", help="fewer cases and epochs: a fraction of the time, and worse figures")] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="everything random follows from it; at least 0")] = 0,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="where nets are trained and asked")] = "cpu",
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="write the figures here")] = None,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="draw accuracy against epochs, and against generated cases, here")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="save the mimic that the closing sentences are about, as safetensors")
    ] = None,
) -> None:
    """Train a teacher, a shallow net on labels, and the same shallow net as a mimic of the teacher; show what was won.

    mnist1d is made on the spot, and takes one to two minutes on two cores. The others need --path with files that you download. letter:
    letter-recognition.data of UCI's Letter Recognition (https://archive.ics.uci.edu/dataset/59); it needs scikit-learn too. mnist: the four
    idx files of MNIST, as they are or with .gz (https://ossci-datasets.s3.amazonaws.com/mnist/ is a mirror).

    Columns: rows trained on; accuracy on the test rows, its standard error, and agreement with the teacher in per cent; parameters; bytes
    that a prediction reads; multiply-adds and microseconds a row, the fastest of up to 20 calls with all test rows; seconds of training.
    """
    from ..demo import datasets, report, run_demo

    files = [] if path is None else [Path(expanded(path)) / name for name in datasets.FILES.get(data, ())]
    demand_distinct({f"path's {file.name}": file for file in files}, {"json": json, "plot": plot, "out": out})
    for name, file in (("json", json), ("plot", plot), ("out", out)):
        if file is not None:
            demand_writable(name, file)
    if out is not None:
        demand_kind_or_none("out", out, "student")
    if json is not None:
        demand_json_or_none("json", json)
    if plot is not None:
        demand_png_or_none("plot", plot)
        report.demand_matplotlib()
    result = run_demo(data, None if path is None else expanded(path), fast=fast, seed=seed, device=device, by_cases=plot is not None)
    try:
        if out is not None:
            result.student.save(out)
        if json is not None:
            report.write_json(result, json)
        if plot is not None:
            report.draw(result, plot)
    finally:
        report.show(result)
