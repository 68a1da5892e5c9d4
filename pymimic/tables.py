"""Tables on a terminal. No number is ever cut: a table that is too wide goes on below, in another table with the same rows."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

_WORDS = ("", "model", "shape", "work", "best other")  # columns of text; all others hold numbers
_ANY_WIDTH = 10_000


def print_table(console: Console, columns: Sequence[str], rows: Sequence[Sequence[str]], keys: int = 1) -> None:
    """Print `rows` of cells in rich's markup; the first `keys` columns say which row it is, and stand in every part of a wide table."""
    first = keys
    while first < len(columns):
        for last in range(len(columns), first, -1):  # as many columns as there is room for, and one at least
            part = [*range(keys), *range(first, last)]
            table = _table([columns[i] for i in part], [[row[i] for i in part] for row in rows])
            table.width = console.measure(table, options=console.options.update(width=_ANY_WIDTH)).maximum
            if table.width <= console.width:
                break
        console.print(table, crop=False)
        first = last


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Words to the left, numbers to the right, every cell on one line."""
    table = Table(box=SIMPLE, padding=(0, 1), pad_edge=False, collapse_padding=True)
    for column in columns:
        table.add_column(column, no_wrap=True, justify="left" if column in _WORDS else "right")
    for row in rows:
        table.add_row(*row)
    return table
