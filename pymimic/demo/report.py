"""The demo's figures as a table, as sentences, as JSON and as a plot."""

from __future__ import annotations

import importlib
import json
import math
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..packages import package
from ..targets import replacing
from .measure import TIMINGS, Model
from .run import Result

COLUMNS = ("model", "rows", "accuracy %", "+-", "agreement %", "parameters", "bytes", "multiply-adds", "us/row", "training s")
_LEGEND = {  # of the lines that have these names in the recipe
    "mimic": "mimics learn the teacher's logits, by squared error where nothing else is said",
    "munge": "MUNGE's cases are the labelled rows and rows that MUNGE made of them; unlabelled rows are more of the set's own",
    "temperature": "distillation is cross-entropy with the teacher's probabilities, at the temperature T",
    "true": "controls learn the classes of the unlabelled rows instead of logits, by cross-entropy; no mimic knows their true labels",
    "hard": "teacher's classes are the ones that it chooses",
}


def show(result: Result) -> None:
    """Print the table, by rich where standard output is a terminal and rich is there, and what it shows."""
    rows = [cells(model) for model in result.models.values()]
    print(_title(result))
    if sys.stdout is not None and sys.stdout.isatty() and _try_import("rich") is not None:
        from rich.console import Console

        from ..tables import print_table

        print_table(Console(), COLUMNS, rows)
    else:
        print(plain_table(rows))
    print(f"\n{legend(result)}\n\n{verdict(result)}")


def plain_table(rows: list[tuple[str, ...]], columns: int = len(COLUMNS)) -> str:
    """So many columns under their names, aligned."""
    lines = [line[:columns] for line in (COLUMNS, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines)]
    places = [(str.rjust if i else str.ljust) for i in range(columns)]
    return "\n".join("  ".join(place(cell, width) for place, cell, width in zip(places, line, widths)) for line in lines)


def legend(result: Result) -> str:
    """What the columns and lines are."""
    columns = (
        "+- is the standard error of the accuracy; agreement is with the teacher",
        f"us/row is the fastest of up to {TIMINGS} calls with all test rows, and jumps where other programs run",
    )
    return "\n".join(f"- {what}" for what in (*columns, *(what for name, what in _LEGEND.items() if name in result.models)))


def verdict(result: Result) -> str:
    """What the figures show and what they do not, whichever way they fell."""
    teacher, mimic = result.models["teacher"], result.models["mimic"]
    on_labels = [model for key, model in result.models.items() if key in ("labels", "regularised")]
    best = max(on_labels, key=lambda model: model.validation_accuracy)
    sentences = [f"{_gain(mimic, best)} {_standing(mimic, teacher)}", *_controls(result.models, mimic), _price(mimic, teacher)]
    return "\n".join(sentences)


def _gain(mimic: Model, labels: Model) -> str:
    gain, error = 100 * (mimic.accuracy - labels.accuracy), 100 * math.hypot(mimic.error, labels.error)
    both = f"{100 * mimic.accuracy:.2f} % against {100 * labels.accuracy:.2f} %"
    if abs(gain) < 2 * error:
        return f'"{mimic.title}" and "{labels.title}" cannot be told apart: {both}, standard error {error:.2f} points.'
    how = f"{abs(gain):.2f} points {'better' if gain > 0 else 'WORSE'}"
    return f'"{mimic.title}" is {how} than "{labels.title}" ({both}): {abs(gain) / error:.0f} standard errors.'


def _standing(mimic: Model, teacher: Model) -> str:
    behind = 100 * (teacher.accuracy - mimic.accuracy)
    return f"It is {abs(behind):.2f} points {'below' if behind >= 0 else 'above'} the teacher."


def _controls(models: dict[str, Model], mimic: Model) -> list[str]:
    if "true" not in models:
        return []
    true = 100 * models["true"].accuracy
    sentence = f"With the true labels of the same {mimic.rows:,} rows the net gets {true:.2f} %: "
    if true > 100 * mimic.accuracy - 0.5:
        sentence += "a teacher replaces labels where they are few, and wins nothing where there are plenty"
    else:
        sentence += "even there the teacher's logits teach it better than labels"
    return [f"{sentence}. The teacher is better because it is convolutional, not because it is deep."]


def _price(mimic: Model, teacher: Model) -> str:
    size = _ratio(teacher.size.bytes, mimic.size.bytes, "the teacher's bytes")
    return f'"{mimic.title}" takes {_ratio(teacher.us_per_row, mimic.us_per_row, "the time of the teacher for a row")}, and {size}.'


def write_json(result: Result, path: Path) -> None:
    """All figures; accuracy, its error and agreement are shares."""
    figures = {
        "data": result.data, "seed": result.seed, "rows": result.rows, "backend": result.backend, "seconds": result.seconds,
        "models": {name: asdict(model) for name, model in result.models.items()}, "by_cases": result.by_cases,
    }  # fmt: skip
    with replacing(path) as file:
        file.write((json.dumps(figures, indent=2) + "\n").encode())


def demand_matplotlib() -> Any:
    """What draws; ImportError says what to install for it."""
    return package("plot", "matplotlib.figure")


def draw(result: Result, path: Path) -> None:
    """As PNG: validation accuracy against epochs, and test accuracy against the number of cases; a model without epochs is a line."""
    figure: Any = demand_matplotlib().Figure(figsize=(12, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for model in result.models.values():
        if model.curve:
            left.plot(range(1, len(model.curve) + 1), model.curve, label=model.title)
        else:
            left.axhline(model.validation_accuracy, label=f"{model.title} (has no epochs)", linestyle="--", color="grey")
    left.set(xscale="log", xlabel="epochs, each over the model's own rows", ylabel="accuracy on validation rows")
    right.plot(list(result.by_cases), list(result.by_cases.values()), marker="o", label="mimic, by generated cases")
    for key, style in (("teacher", "-"), ("regularised", "--"), ("labels", ":")):
        if key in result.models:
            right.axhline(result.models[key].accuracy, label=result.models[key].title, linestyle=style, color="grey")
    right.set(xscale="log", xlabel="cases, of which the first are the labelled rows", ylabel="accuracy on test rows")
    for axes in (left, right):
        axes.legend(loc="lower right", fontsize="small")
        axes.grid(alpha=0.3)
    figure.suptitle(_title(result))
    with replacing(path) as file:
        figure.savefig(file, format="png", dpi=150)


def _title(result: Result) -> str:
    rows = ", ".join(f"{count:,} {name}" for name, count in result.rows.items())
    return f"{result.data}, seed {result.seed}: {rows} rows; backend {result.backend}, {result.seconds:.0f} s in all"


def cells(model: Model) -> tuple[str, ...]:
    """Its line of the table."""
    size = model.size
    counts = ("-" if count is None else f"{count:,}" for count in (size.parameters, size.bytes, size.multiply_adds))
    return (
        model.title, f"{model.rows:,}", f"{100 * model.accuracy:.2f}", f"{100 * model.error:.2f}", f"{100 * model.agreement:.2f}", *counts,
        f"{model.us_per_row:.1f}", f"{model.train_seconds:.1f}",
    )  # fmt: skip


def _ratio(whole: float, part: float, what: str) -> str:
    return f"1/{whole / part:.1f} of {what}" if part < whole else f"{part / whole:.1f} times {what}"


def _try_import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
