"""The demo's figures as a table, as sentences, as JSON and as a plot."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from ..targets import replacing
from .run import Model, Result

_COLUMNS = ("model", "parameters", "bytes", "compact", "accuracy", "agreement", "training s", "us/row")
_TITLES = {"teacher": "teacher", "shallow": "shallow net on labels", "mimic": "shallow net as mimic"}
_IN_JSON = ("parameters", "bytes", "bytes_compact", "accuracy", "agreement", "train_seconds", "us_per_row")


def show(result: Result) -> None:
    """Print the table, by rich where standard output is a terminal and rich is there, and what was won."""
    rows = [_cells(_TITLES[name], model) for name, model in result.models.items()]
    print(_title(result))
    if sys.stdout is not None and sys.stdout.isatty() and _try_import("rich") is not None:
        from rich.console import Console

        from ..tables import print_table

        print_table(Console(), _COLUMNS, rows)
    else:
        print(plain_table(rows))
    print(f"\n{verdict(result)}")


def plain_table(rows: list[tuple[str, ...]]) -> str:
    """The rows under the columns' names, aligned."""
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows)]
    lines = [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(line, widths)))
        for line in (_COLUMNS, *rows)
    ]
    return "\n".join(lines)


def verdict(result: Result) -> str:
    """One or two sentences on what was won, whichever way it went."""
    teacher, shallow, mimic = (result.models[name] for name in ("teacher", "shallow", "mimic"))
    rows = result.rows["test"]
    gain = round((mimic.accuracy - shallow.accuracy) * rows)
    both = f"{100 * mimic.accuracy:.2f} % against {100 * shallow.accuracy:.2f} %, {abs(gain)} of {rows} test rows"
    if gain > 0:
        first = f"As a mimic the net is {100 * gain / rows:.2f} points better than the same net on labels ({both})"
    elif gain < 0:
        first = f"Here the mimic lost: it is {-100 * gain / rows:.2f} points worse than the same net on labels ({both})"
    else:
        first = f"Here nothing was won: as a mimic and on labels the net is right on the same share of rows ({100 * mimic.accuracy:.2f} %)"
    behind = 100 * (teacher.accuracy - mimic.accuracy)
    standing = f"{behind:.2f} points below the teacher" if behind > 0 else f"{-behind:.2f} points above the teacher"
    return (
        f"{first}, and {standing if round(behind, 2) else 'level with the teacher'}.\n"
        f"It takes {_ratio(teacher.bytes_compact, mimic.bytes_compact, 'the bytes of the teacher, both counted compactly')}, "
        f"and {_ratio(teacher.us_per_row, mimic.us_per_row, 'its time for a row')}."
    )


def write_json(result: Result, path: Path) -> None:
    """The figures; accuracy and agreement are shares."""
    models = {name: {key: getattr(model, key) for key in _IN_JSON} for name, model in result.models.items()}
    figures = {
        "data": result.data, "seed": result.seed, "rows": result.rows, "models": models, "backend": result.backend,
        "seconds": result.seconds,
    }  # fmt: skip
    with replacing(path) as file:
        file.write((json.dumps(figures, indent=2) + "\n").encode())


def demand_matplotlib() -> Any:
    """What draws; ImportError says what to install for it."""
    module = _try_import("matplotlib.figure")
    if module is None:
        raise ImportError('plot: expected matplotlib to be there: pip install "pymimic[demo]"')
    return module


def draw(result: Result, path: Path) -> None:
    """Validation accuracy against epochs, as PNG; a teacher without epochs is a horizontal line."""
    figure: Any = demand_matplotlib().Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, model in result.models.items():
        if model.curve:
            axes.plot(range(1, len(model.curve) + 1), model.curve, label=_TITLES[name])
        else:
            axes.axhline(model.validation_accuracy, label=f"{_TITLES[name]} (has no epochs)", linestyle="--", color="grey")
    axes.set(xlabel="epochs, each over the model's own training rows", ylabel="accuracy on validation rows", title=_title(result))
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)


def _title(result: Result) -> str:
    rows = ", ".join(f"{count:,} {name}" for name, count in result.rows.items())
    return f"{result.data}, seed {result.seed}: {rows} rows; backend {result.backend}, {result.seconds:.0f} s in all"


def _cells(title: str, model: Model) -> tuple[str, ...]:
    parameters = "-" if model.parameters is None else f"{model.parameters:,}"
    return (
        title, parameters, f"{model.bytes:,}", f"{model.bytes_compact:,}", f"{model.accuracy:.4f}", f"{model.agreement:.4f}",
        f"{model.train_seconds:.1f}", f"{model.us_per_row:.1f}",
    )  # fmt: skip


def _ratio(whole: float, part: float, what: str) -> str:
    return f"1/{whole / part:.1f} of {what}" if part < whole else f"{part / whole:.1f} times {what}"


def _try_import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
