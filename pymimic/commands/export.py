"""`pymimic export`: a saved net as an ONNX model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, cast

import typer

from ..errors import FileFormatError
from ..exits import option, say
from ..files import read_metadata
from ..nets.student import Student
from ..onnx import exporter
from ..onnx.packages import package
from ..targets import demand_distinct, demand_writable
from ..training.deepnet import DeepNet

_NETS: dict[str, type[Student | DeepNet]] = {kind.file_kind: kind for kind in (Student, DeepNet)}


def export(
    net: Annotated[Path, typer.Argument(metavar="S.safetensors", help="a saved student or DeepNet")],
    out: Annotated[Path, typer.Argument(metavar="S.onnx", help="where to write the model")],
    precision: Annotated[str, typer.Option(metavar="float32|float16|int8", help="of the weights in the file")] = "float32",
) -> None:
    """Write a saved net as an ONNX model, from (B, D) float32 rows to (B, C) float32 logits.

    float16 takes half the bytes, int8 a quarter, with a scale for each row of V, U and W. What is computed is float32 in all of them.
    """
    demand_distinct({"net": net}, {"out": out})
    demand_writable("out", out)
    exporter.demand_model_or_none("out", out)
    package("onnx")
    with option("net", path="net"):
        kind = read_metadata(net)["kind"]
        if kind not in _NETS:
            raise FileFormatError(f"net: expected a student or a deepnet, got a {kind!r} file: {str(net)!r}")
        loaded = _NETS[kind].load(net)
    with option("out", student="net"):
        exporter.export(loaded, out, cast(exporter.Precision, precision))
    say(f"{out}: {os.path.getsize(out)} bytes, opset {exporter.OPSETS[precision][0]}")
