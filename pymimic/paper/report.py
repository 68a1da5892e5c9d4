"""Figures of many runs as one HTML page: tables of means over seeds, plots inline, and where the numbers are."""

from __future__ import annotations

import base64
import io
import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..backends.interface import Array
from ..formats import begins_with, demand_replaceable
from ..packages import package
from ..targets import replacing
from .answers import answers
from .claims import reproduced
from .experiment import Experiment
from .figures import Figures, share
from .ledger import Ledger
from .table import TEACHER, Line

_TEMPLATE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{ title }}</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0 } th, td { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left } img { max-width: 100% } .note { color: #555 }
</style>
<h1>{{ title }}</h1>
<p class="note">{{ about }}</p>
<h2>Eight questions that the project began with</h2>
<p class="note">± is the standard deviation over seeds.</p>
{% for answer in answers %}<p><b>{{ answer.question }}</b><br>{{ answer.text }}</p>
{% endfor %}
<h2>The paper's claims, and one on spoken digits</h2>
<p class="note">A difference counts if it is more than twice its standard error over seeds.</p>
{% for answer in claims %}<p><b>{{ answer.question }}</b><br>{{ answer.text }}</p>
{% endfor %}
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
{% for picture in section.pictures %}<h3>{{ picture.title }}</h3>
<img alt="{{ picture.title }}" src="data:image/png;base64,{{ picture.png }}">
{% endfor %}
{% endfor %}
</html>
"""
_TITLE = "Do wide shallow nets do a deep net's job?"
_COLUMNS = ("", "seeds", "cases", "parameters", "bytes", "multiply-adds", "validation %", "test %", "agreement %", "CPU s")


@dataclass(frozen=True)
class Part:
    """One table, and its plot."""

    title: str
    columns: Sequence[str]
    lines: Sequence[Sequence[str]]
    picture: str  # base64 of a PNG, or ""


@dataclass(frozen=True)
class Picture:
    """One that belongs to no table."""

    title: str
    png: str  # in base64


@dataclass(frozen=True)
class Section:
    """One experiment."""

    title: str
    notes: Sequence[str]
    parts: Sequence[Part]
    pictures: Sequence[Picture] = ()


def demand_page_or_none(path: Path) -> None:
    """As `demand_replaceable`, of a page that `write` wrote."""
    start = _TEMPLATE.partition("{{ title }}")[0] + _TITLE.partition("'")[0]  # which HTML spells otherwise
    demand_replaceable("out", path, "a page of pymimic paper", begins_with(start.encode()))


def demand_packages() -> None:
    """ImportError says what to install."""
    for name in ("jinja2", "matplotlib"):
        package("paper", name)


def section(experiment: Experiment) -> Section:
    """An experiment's tables and plots; pictures are written beside the CSV too."""
    ledger = experiment.open()
    seconds = sum(float(line["cpu_seconds"]) for line in ledger.lines)
    notes = [
        f"Every run: {ledger.path.name}. Mean and standard deviation over seeds.",
        f"Training took {seconds / 60:.0f} minutes of processor time, all runs added up.",
        *([f"Made by {_makers(ledger.lines)}."] if ledger.lines else []),
        *experiment.notes,
    ]
    if ledger.openings > 1:
        notes.append(f"Some test rows were opened after others had been seen: {ledger.openings - 1} times before the last.")
    parts = []
    for part in dict.fromkeys(line["part"] for line in ledger.lines if line["part"] != TEACHER):
        lines = _by_name([line for line in ledger.lines if line["part"] in (part, TEACHER)])
        picture = _plot(ledger, part, lines)
        cells = [_cells(name, group, experiment.more) for name, group in lines.items()]
        parts.append(Part(part, (*_COLUMNS, *(f"{name} %" for name in experiment.more)), cells, picture))
    pictures = [Picture(title, _written(ledger, title, _images(images))) for title, images in experiment.images(ledger).items()]
    return Section(experiment.title, notes, parts, pictures)


def write(path: Path, figures: Figures, sections: Sequence[Section], about: str) -> None:
    """The page, the answers first."""
    template = package("paper", "jinja2").Environment(autoescape=True).from_string(_TEMPLATE)
    text = template.render(
        title=_TITLE,
        about=about,
        answers=answers(figures),
        claims=reproduced(figures),
        sections=sections,
    )
    with replacing(path) as file:
        file.write(text.encode())


def _makers(lines: Sequence[Line]) -> str:
    """Versions and machines, each with how many of the runs it made where there are several."""
    counts = Counter(line["made_by"] for line in lines)
    return "; ".join(f"{maker}{f' ({count} of {len(lines)} runs)' * (len(counts) > 1)}" for maker, count in counts.items())


def _by_name(lines: Sequence[Line]) -> dict[str, list[Line]]:
    groups: dict[str, list[Line]] = {}
    for line in lines:
        groups.setdefault(line["name"], []).append(line)
    return groups


def _cells(name: str, group: Sequence[Line], more: Sequence[str]) -> list[str]:
    first = group[0]
    counts = [f"{int(first[column]):,}" if first[column] else "-" for column in ("rows", "parameters", "bytes", "multiply_adds")]
    shares = [_spread(group, column) for column in ("validation_accuracy", "test_accuracy", "agreement")]
    seconds = f"{statistics.mean(float(line['cpu_seconds']) for line in group):.0f}"
    return [name, str(len(group)), *counts, *shares, seconds, *(_spread(group, column) for column in more)]


def _spread(group: Sequence[Line], column: str) -> str:
    """In per cent: the mean, and the deviation where there is one."""
    known = [line for line in group if line[column]]
    return str(share(known, column)).removesuffix(" %") if known else "-"


def _plot(ledger: Ledger, part: str, groups: dict[str, list[Line]]) -> str:
    """Test accuracy against the runs' values, a line for all names with the same beginning before a colon, as base64; "" without values."""
    series: dict[str, list[tuple[float, float]]] = {}
    for name, group in groups.items():
        if group[0]["value"]:
            series.setdefault(name.partition(": ")[0] if ": " in name else "", []).append((float(group[0]["value"]), _mean(group)))
    points = [point for some in series.values() for point in some]
    if len(points) < 2 or any(math.isnan(y) for _, y in points):
        return ""
    figure = _figure(7, 4)
    axes = figure.subplots()
    for name, some in series.items():
        axes.plot(*zip(*sorted(some)), marker="o", label=name or None)
    if TEACHER in groups:
        axes.axhline(_mean(groups[TEACHER]), linestyle="--", color="grey", label="teacher")
    axes.legend(loc="lower right")
    log = min(x for x, _ in points) > 0 and max(x for x, _ in points) >= 100
    axes.set(xlabel=part, ylabel="accuracy on test rows, %", xscale="log" if log else "linear")
    axes.grid(alpha=0.3)
    return _written(ledger, part, figure)


def _figure(width: float, height: float) -> Any:
    return package("paper", "matplotlib.figure").Figure(figsize=(width, height), layout="constrained")


def _images(images: Array) -> Any:
    """Images (n, height, width) in a square, each from minus to plus its greatest value."""
    side = math.ceil(math.sqrt(len(images)))
    figure = _figure(8, 8)
    for axes, image in zip(figure.subplots(side, side, squeeze=False).flat, images):
        most = abs(image).max()
        axes.imshow(image, cmap="RdBu_r", vmin=-most, vmax=most)
    for axes in figure.axes:
        axes.axis("off")
    return figure


def _written(ledger: Ledger, title: str, figure: Any) -> str:
    """The figure as base64, and as a file beside the CSV."""
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    with replacing(ledger.folder / f"{ledger.name}-{title.replace(' ', '-').replace(',', '')}.png") as file:
        file.write(content.getvalue())
    return base64.b64encode(content.getvalue()).decode()


def _mean(group: Sequence[Line]) -> float:
    known = [line for line in group if line["test_accuracy"]]
    return share(known).mean if known else math.nan
