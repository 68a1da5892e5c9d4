"""What the figures look like: tables on a terminal, a picture, and the tables in the documents."""

import importlib.util
import io
import json
import re
from pathlib import Path

import pytest

pytest.importorskip("rich")

from rich.console import Console

from pymimic.bench import plot, report
from pymimic.tables import print_table


def printed(result, rows, width):
    """All that the command prints, on a terminal of that width."""
    console = Console(record=True, width=width, file=io.StringIO())
    report.show_machine(console, result)
    for group in report.races(rows):
        report.show_race(console, group)
    report.show_summary(console, rows, [{"shape": "s", "B": 1, "what": "step", "peer": "p", "why": "p is not installed"}])
    return console.export_text()


def test_tables_say_what_was_measured(result):
    first, *others = result["results"]
    text = printed(result, [first | {"quiet": False, "discarded": 3}, *others], 80)
    for words in ("mnist-8k: forward", "mnist-8k: adamw", "pymimic, h kept", "NumPy", "p is not installed", "the figures mean nothing"):
        assert words in text
    assert f"~{report.duration(first['seconds'])}" in text
    assert re.search(r"turns? each, \d+ of \d+ discarded for other load", " ".join(text.split()))


@pytest.mark.parametrize("width", [80, 50, 20])
def test_numbers_are_whole_however_narrow_the_terminal(result, width):
    titles = ["pymimic", "torch.compile, bf16", "scikit-learn"]
    long = {"shape": "timit-dense", "B": 65536, "what": "serving", "quiet": False, "gflops": 1234567.8, "gbps": 12345.6, "bound": "FMA"}
    sizes = {"seconds": 4.56e-5, "low": 4e-5, "high": 6e-5, "of_ceiling": 1.31, "peak_bytes": 123456 << 20}
    rows = [result["results"][0] | long | sizes | {"title": title, "peer": title} for title in titles]
    text = printed(result, rows, width)
    assert "…" not in text
    for number, times in {"1234567.8": 3, "12345.6": 3, "131% FMA": 3, "~45.6 us": 5, "±22%": 3, "123456": 6, "65536": 1}.items():
        assert text.count(number) >= times, (number, text)


def test_a_table_that_is_too_wide_goes_on_below():
    def lines(width):
        console = Console(record=True, width=width, file=io.StringIO())
        print_table(console, ("", "first", "second"), [("a", "1.5", "2.5"), ("b", "3.5", "4.5")])
        return [line.split() for line in console.export_text().splitlines() if line.strip(" ─")]

    assert lines(80) == [["first", "second"], ["a", "1.5", "2.5"], ["b", "3.5", "4.5"]]
    assert lines(15) == [["first"], ["a", "1.5"], ["b", "3.5"], ["second"], ["a", "2.5"], ["b", "4.5"]]


def test_the_picture(result, tmp_path):
    plot.draw(result, tmp_path / "bars.png")
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("seconds", "text"), [(1.234, "1.23 s"), (0.0123, "12.3 ms"), (0.123, "123 ms"), (45.6e-6, "45.6 us"), (1e-8, "0.0100 us")]
)
def test_duration(seconds, text):
    assert report.duration(seconds) == text


def make_tables():
    path = Path(__file__).parents[2] / "benchmarks" / "make_tables.py"
    if not path.exists():
        pytest.skip("not a checkout")
    spec = importlib.util.spec_from_file_location("make_tables", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_made_of_the_newest_results(result, tmp_path):
    made = make_tables()
    (tmp_path / "old.json").write_text(json.dumps(result | {"date": "2020-01-01T00:00:00+00:00", "results": []}))
    (tmp_path / "new.json").write_text(json.dumps(result))
    begin, end = made.BEGIN.format("benchmarks"), made.END.format("benchmarks")
    text = made.with_tables(f"before\n{begin}\nold\n{end}\nafter\n", tmp_path)
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "| mnist-8k | 37 | forward | **" in text
    assert "2020-01-01" not in text
    assert made.with_tables(text, tmp_path) == text


def test_each_machine_has_a_table(result, tmp_path):
    made = make_tables()
    other = json.loads(json.dumps(result))
    other["machine"]["cpu"] = "another processor"
    other["date"] = "2020-01-01T00:00:00+00:00"
    for name, run in (("a.json", result), ("b.json", other)):
        (tmp_path / name).write_text(json.dumps(run))
    text = made.with_tables(made.BEGIN.format("benchmarks") + made.END.format("benchmarks"), tmp_path)
    assert "### another processor" in text
    assert f"### {result['machine']['cpu']}" in text


def test_a_page_without_marks_is_refused(tmp_path):
    with pytest.raises(ValueError, match="expected the marks <!-- benchmarks"):
        make_tables().with_tables("no marks", tmp_path)


def test_tables_are_up_to_date():
    made = make_tables()
    for page, want in made.wanted().items():
        assert page.read_text() == want
