"""Figures of many runs as one HTML page: tables of means over seeds, plots inline, and where the numbers are."""

from __future__ import annotations

import base64
import importlib
import io
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..targets import replacing
from .experiment import TEACHER
from .ledger import Ledger, Line

_TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left } img { max-width: 100% } .note { color: #555 }
</style>
<h1>{{ title }}</h1>
<p class="note">{{ about }}</p>
{% for section in sections %}
<h2>{{ section.title }}</h2>
{% for note in section.notes %}<p class="note">{{ note }}</p>{% endfor %}
{% for part in section.parts %}
<h3>{{ part.title }}</h3>
<table><tr>{% for column in part.columns %}<th>{{ column }}</th>{% endfor %}</tr>
{% for line in part.lines %}<tr>{% for cell in line %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
{% if part.picture %}<img alt="{{ part.title }}" src="data:image/png;base64,{{ part.picture }}">{% endif %}
{% endfor %}
{% endfor %}
</html>
"""
_COLUMNS = ("", "seeds", "cases", "parameters", "bytes", "multiply-adds", "validation %", "test %", "agreement %", "training s")


@dataclass(frozen=True)
class Part:
    """One table, and its plot."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    picture: str  # base64 of a PNG, or ""


@dataclass(frozen=True)
class Section:
    """One experiment."""

    title: str
    notes: Sequence[str]
    parts: Sequence[Part]


def demand_packages() -> None:
    """ImportError says what to install."""
    for name in ("jinja2", "matplotlib"):
        try:
            importlib.import_module(name)
        except ImportError:
            raise ImportError(f'paper: expected {name} to be there: pip install "pymimic[paper]"') from None


def section(title: str, ledger: Ledger, opened_before: int) -> Section:
    """An experiment's tables and plots; pictures are written beside the CSV too."""
    notes = [f"Every run: {ledger.path.name}. Mean and standard deviation over seeds."]
    if opened_before:
        notes.append(f"Some test rows were opened after others had been seen: {opened_before} times before the last.")
    parts = []
    for part in dict.fromkeys(line["part"] for line in ledger.lines if line["part"] != TEACHER):
        lines = _by_name([line for line in ledger.lines if line["part"] in (part, TEACHER)])
        picture = _plot(ledger, part, lines)
        parts.append(Part(part, _COLUMNS, [_cells(name, group) for name, group in lines.items()], picture))
    return Section(title, notes, parts)


def write(path: Path, sections: Sequence[Section], about: str) -> None:
    """The page."""
    jinja2: Any = importlib.import_module("jinja2")
    template = jinja2.Environment(autoescape=True).from_string(_TEMPLATE)
    text = template.render(title="Do wide shallow nets do a deep net's job?", about=about, sections=sections)
    with replacing(path) as file:
        file.write(text.encode())


def _by_name(lines: Sequence[Line]) -> dict[str, list[Line]]:
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line["name"], []).append(line)
    return groups


def _cells(name: str, group: Sequence[Line]) -> list[str]:
    first = group[0]
    counts = [f"{int(first[column]):,}" if first[column] else "-" for column in ("rows", "parameters", "bytes", "multiply_adds")]
    shares = [_spread(group, column) for column in ("validation_accuracy", "test_accuracy", "agreement")]
    return [name, str(len(group)), *counts, *shares, f"{statistics.mean(float(line['seconds']) for line in group):.0f}"]


def _spread(group: Sequence[Line], column: str) -> str:
    """In per cent: the mean, and the deviation where there is one."""
    values = [100 * float(line[column]) for line in group if line[column]]
    if not values:
        return "-"
    deviation = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{deviation}"


def _plot(ledger: Ledger, part: str, groups: dict[str, list[Line]]) -> str:
    """Test accuracy against the runs' values, as base64, and as a file; "" where they have none."""
    points = [(float(group[0]["value"]), _mean(group)) for group in groups.values() if group[0]["value"]]
    if len(points) < 2 or any(math.isnan(y) for _, y in points):
        return ""
    figure: Any = importlib.import_module("matplotlib.figure").Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(*zip(*sorted(points)), marker="o")
    if TEACHER in groups:
        axes.axhline(_mean(groups[TEACHER]), linestyle="--", color="grey", label="teacher")
        axes.legend(loc="lower right")
    log = min(x for x, _ in points) > 0 and max(x for x, _ in points) >= 100
    axes.set(xlabel=part, ylabel="accuracy on test rows, %", xscale="log" if log else "linear")
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    with replacing(ledger.folder / f"{ledger.name}-{part.replace(' ', '-').replace(',', '')}.png") as file:
        file.write(content.getvalue())
    return base64.b64encode(content.getvalue()).decode()


def _mean(group: Sequence[Line]) -> float:
    values = [100 * float(line["test_accuracy"]) for line in group if line["test_accuracy"]]
    return statistics.mean(values) if values else math.nan
