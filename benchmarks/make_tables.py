"""Write what is in results/ into README.md and the documents, between marks that name it.

    python benchmarks/make_tables.py

With --check it writes nothing, and fails if a page differs. The demo's figures are those that
`pymimic demo --json benchmarks/results/demo/mnist1d.json` wrote, those of the paper's experiments are `pymimic paper`'s, and those that
AdamW's defaults were chosen by `choose_defaults.py`'s.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pymimic.bench.report import best_peer, call_time, ours, races
from pymimic.bench.shapes import SHAPES
from pymimic.demo.measure import Model, Size
from pymimic.demo.report import cells, plain_table
from pymimic.paper.answers import answers
from pymimic.paper.claims import reproduced
from pymimic.paper.figures import Figures, MissingError
from pymimic.paper.speech import DIGIT_ERROR, LEFT_OUT
from pymimic.paper.table import TEACHER
from pymimic.paper.timit import PAPERS, PHONE_ERROR

HERE = Path(__file__).parent
README, PERFORMANCE = HERE.parent / "README.md", HERE.parent / "docs" / "performance.md"
CHOOSE, PAPER, COMPRESS, SPEECH = (HERE.parent / "docs" / "howto" / f"{name}.md" for name in ("choose", "paper", "compress", "speech"))
BEGIN, END = "<!-- {}: made by a script of benchmarks/ -->", "<!-- {}: end -->"
WORK = {"forward": "forward", "step": "step", "adamw": "step with AdamW", "serving": "serve one row"}
OPS = (  # title, test in test_kernels.py, rival there
    ("`factorized_matmul` beside NumPy", "test_factorized_matmul[{}]", "numpy"),
    ("`dropout` beside a copy on one thread", "test_dropout[{}-forward]", "copy"),
    ("`dropout` beside torch's dropout of relu", "test_dropout[{}-forward]", "torch"),
    ("`dropout_backward` beside a copy", "test_dropout[{}-backward]", "copy"),
    ("`dropout_backward` beside torch's", "test_dropout[{}-backward]", "torch"),
)
COLUMNS_OF_README = 8  # of the demo's: the others are times
SETS = {"MNIST-1D": "mnist1d", "UCI Letter": "letter", "MNIST": "mnist"}  # by their experiments
LABELS, MIMICS = "the best on labels", "the best mimic"
NETS: dict[str, dict[str, tuple[str, tuple[str, ...]]]] = {  # of each set: the part, and the runs to choose from by validation rows
    "mnist1d": {
        LABELS: ("table", ("labels", "labels, dropout and noise", "labels, rows rolled at random")),
        MIMICS: ("table", ("mimic, MUNGE", "T = 3, MUNGE", "mimic, unlabelled rows", "T = 3, unlabelled rows")),
    },
    "letter": {LABELS: ("width, labels", ("H = 1,024",)), MIMICS: ("width, mimic", ("H = 1,024",))},
    "mnist": {
        LABELS: ("table", ("labels", "labels, dropout and weight decay", "labels, deformed images")),
        MIMICS: ("table", ("mimic, deformed images", "T = 3, deformed images")),
    },
}
LOSSES = {"squared error of logits": ("table", "mimic, unlabelled rows"), "T = 3": ("table", "T = 3, unlabelled rows")}
LOSSES |= {name: ("loss", name) for name in ("T = 1", "T = 10", "squared error of probabilities")}
COLUMNS = (
    "shape", "B", "work", "pymimic", "of the ceiling", "fastest other", "its time", "ratio", "pymimic bf16", "other bf16", "pymimic int8",
    "MiB: pymimic", "MiB: other",
)  # fmt: skip


def runs(folder: Path) -> list[dict[str, Any]]:
    """The newest run of each machine, the one of most races first."""
    newest: dict[str, dict[str, Any]] = {}
    for run in sorted((json.loads(path.read_text()) for path in folder.glob("*.json")), key=lambda run: str(run["date"])):
        newest[run["machine"]["cpu"]] = run
    return sorted(newest.values(), key=lambda run: -len(run["results"]))


def section(run: dict[str, Any]) -> str:
    """One machine: what it is, what it can do at most, and its table."""
    machine, ceilings = run["machine"], run["ceilings"]
    peaks = ", ".join(f"{ceilings[dtype]:.0f} in {dtype}" for dtype in ("float32", "float64", "bfloat16") if ceilings[dtype])
    read = ", ".join(f"{rate:.0f} from {int(size) >> 20} MiB" for size, rate in ceilings["read"].items())
    versions = dict(version for row in run["results"] if (version := (row["title"].split(",")[0], row["versions"])))
    thrown, counted = (sum(row[key] for row in run["results"]) for key in ("discarded", "rounds"))
    return "\n\n".join(
        [
            f"### {machine['cpu']}",
            f"{run['date'][:10]}, {machine['cores']} cores, {machine['threads']} threads, {machine['instruction_set']}, "
            f"{machine['memory_bytes'] / 2**30:.0f} GiB, {machine['system']}, Python {machine['python']}.\n"
            f"Ceilings: GFLOP/s: {peaks}; GB/s read: {read}; GB/s copied: {ceilings['copy']:.0f}.\n"
            f"Versions: {', '.join(f'{title} {version}' for title, version in versions.items())}.\n"
            f"Turns discarded for other load: {thrown} of {thrown + counted}.",
            table(COLUMNS, [line(group) for group in races(run["results"])]),
        ]
    )


def line(rows: Sequence[dict[str, Any]]) -> list[str]:
    """One race: this library's fastest way in float32 beside the fastest other's, and both in fewer bits."""
    first, mine, other = rows[0], ours(rows), best_peer(rows)
    small = [ours(rows, "bfloat16"), best_peer(rows, "bfloat16"), ours(rows, "int8") if first["what"] == "serving" else None]
    return [
        first["shape"], str(first["B"]), WORK[first["what"]],
        f"**{call_time(mine)}**{turns(mine)}" if mine else "", f"{mine['of_ceiling']:.0%}" if mine else "",
        other["title"] if other else "", call_time(other) + turns(other) if other else "",
        f"{other['seconds'] / mine['seconds']:.2f} x" if mine and other else "",
        *(call_time(row) if row else "" for row in small),
        *(f"{row['peak_bytes'] / 2**20:.0f}" if row and row["peak_bytes"] else "" for row in (mine, other)),
    ]  # fmt: skip


def turns(row: dict[str, Any]) -> str:
    """How many there were, where they are few."""
    return f" ({row['rounds']} turn{'s' * (row['rounds'] > 1)})" if row["rounds"] < 3 else ""


def ops_section(run: dict[str, Any]) -> str:
    """Single ops of one pytest-benchmark run: the times of others over ours."""
    lines = []
    for title, test, rival in OPS:
        figures = [run["ops"].get(test.format(shape), {}).get(f"x {rival}") for shape in SHAPES]
        lines.append([title, *("" if figure is None else f"{figure:.1f} x" for figure in figures)])
    machine = run["machine"]
    about = f"{machine['cpu']}, {machine['cores']} cores, {machine['threads']} threads, {machine['instruction_set']}."
    about += " One run, while other work shared the cores."
    return "\n\n".join(["### Single ops", about, table(("the other's time over ours", *SHAPES), lines)])


def loops_section(run: dict[str, Any]) -> str:
    """Whole training loops, milliseconds a step, of one run of embedding.py."""
    machine, sizes = run["machine"], ("name", "B", "D", "k", "H", "C")
    names = list(dict.fromkeys(name for result in run["results"] for name in result["milliseconds"]))
    lines = []
    for result in run["results"]:
        figures = [result["milliseconds"].get(name) for name in names]
        lines.append([*(str(result["shape"][size] or "none") for size in sizes), *("" if ms is None else f"{ms:.2f}" for ms in figures)])
    about = f"{machine['cpu']}, {machine['threads']} threads. Milliseconds a step of whole loops, exact float32, AdamW."
    columns = ("shape", *sizes[1:], *("torch's layers" if name == "torch" else f"`{name}`" for name in names))
    return "\n\n".join(["### Inside torch and scikit-learn", about, table(columns, lines)])


def table(columns: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, ["---"] * len(columns), *lines))


def with_tables(text: str, folder: Path) -> str:
    """The page with its tables made anew."""
    parts = [section(run) for run in runs(folder)]
    parts += [ops_section(json.loads(path.read_text())) for path in sorted((folder / "ops").glob("*.json"))[-1:]]
    parts += [loops_section(json.loads(path.read_text())) for path in sorted((folder / "loops").glob("*.json"))[-1:]]
    return between_marks(text, "benchmarks", "\n\n".join(parts or ["No results yet."]))


def demo_table(run: dict[str, Any]) -> str:
    """The demo's, without the columns of times."""
    rows = ", ".join(f"{count:,} {name}" for name, count in run["rows"].items())
    models = [Model(**model | {"size": Size(**model["size"])}) for model in run["models"].values()]
    plain = plain_table([cells(model) for model in models], COLUMNS_OF_README)
    return f"```text\n{run['data']}, seed {run['seed']}: {rows} rows; backend {run['backend']}\n{plain}\n```"


def defaults_table(results: Sequence[dict[str, Any]]) -> str:
    """Validation accuracy by rate, beta2 and running average, a line for each set and rate."""
    ways = list(dict.fromkeys((result["beta2"], result["ema"]) for result in results))
    columns = ["set", "rows x epochs", "B", "k", "H", "rate"]
    columns += [f"beta2 {beta2}{', average' if ema else ''}" for beta2, ema in ways]
    lines: dict[tuple[str, ...], list[str]] = {}
    for result in results:
        hidden, rank = result["shape"]
        key = (
            result["set"], f"{result['rows']:,} x {result['epochs']}", str(result["batch_size"]), str(rank or "none"), f"{hidden:,}",
            f"{result['learning_rate']:g}",
        )  # fmt: skip
        lines.setdefault(key, []).append(f"{100 * result['validation_accuracy']:.2f} %")
    return table(columns, [[*key, *cells] for key, cells in lines.items()])


def sets_table(figures: Figures) -> str:
    """Each set's teacher and shallow nets, on test rows."""
    lines = []
    for title, name in SETS.items():
        chosen = {what: (part, figures.best(name, part, runs)) for what, (part, runs) in NETS[name].items()}
        net = figures.of(name, *chosen[MIMICS])[0]
        shares = [figures.share(name, TEACHER, TEACHER), *(figures.share(name, *run) for run in chosen.values())]
        lines.append([title, str(shares[-1].seeds), net["rank"] or "none", f"{int(net['hidden']):,}", *map(str, shares)])
    return table(["set", "seeds", "k", "H", "teacher", *(f"shallow net: {what}" for what in (LABELS, MIMICS))], lines)


def losses_table(figures: Figures) -> str:
    """A mimic's accuracy by its loss, on MNIST-1D and Letter."""
    lines = [
        [loss, str(figures.share("mnist1d", *run, "validation_accuracy")), str(figures.share("mnist1d", *run))]
        for loss, run in LOSSES.items()
    ]
    return table(["loss", "validation rows", "test rows"], lines)


def compressed_tables(figures: Figures) -> str:
    """A student and a deep net of each set, made smaller."""
    parts = []
    for title, name in (("UCI Letter", "compress-letter"), ("MNIST", "compress-mnist")):
        lines = []
        for run in figures.names(name, "bytes"):
            counts = [f"{figures.number(name, 'bytes', run, column):,.0f}" for column in ("parameters", "bytes", "multiply_adds")]
            lines.append([run, *counts, str(figures.share(name, "bytes", run)), str(figures.share(name, "bytes", run, "agreement"))])
        student = figures.of(name, "bytes", "student: as trained")
        seeds = f"{len(student)} seed{'s' * (len(student) > 1)}"
        about = f"{title}: k = {student[0]['rank'] or 'none'}, H = {int(student[0]['hidden']):,}, {seeds}."
        parts.append(f"{about}\n\n{table(['', 'parameters', 'bytes', 'multiply-adds', 'test rows', 'agreement with the teacher'], lines)}")
    return "\n\n".join(parts)


def speech_table(figures: Figures) -> str:
    """The nets of the synthetic corpus, and the paper's phone errors on TIMIT beside them."""
    names, lines = figures.names("timit-synthetic", "table"), []
    if not names:
        return "Not measured: `pymimic paper timit-synthetic` does it."
    for name, part, run in (("ECNN, the teacher", TEACHER, TEACHER), *((name, "table", name) for name in names)):
        shares = [figures.share("timit-synthetic", part, run, column) for column in ("test_accuracy", PHONE_ERROR)]
        cells = [cell for share in shares for cell in (f"{share.mean:.2f} %", f"{share.error:.2f}")]
        parameters, seconds = (figures.number("timit-synthetic", part, run, column) for column in ("parameters", "cpu_seconds"))
        paper = PAPERS.get(name.partition(",")[0])
        lines.append([name, *cells, f"{parameters / 1e6:.1f} M", f"{seconds:.0f}", "" if paper is None or ", s" in name else f"{paper} %"])
    columns = (
        "",
        "frames right",
        "standard error",
        "phone error",
        "standard error",
        "parameters",
        "CPU s",
        "the paper's phone error on TIMIT",
    )
    seeds = figures.share("timit-synthetic", TEACHER, TEACHER).seeds
    return f"Synthetic speech, test speakers, {seeds} seed{'s' * (seeds > 1)}:\n\n{table(columns, lines)}"


def digits_table(figures: Figures) -> str:
    """Frames right and digits wrong on spoken digits: of all nets by the publisher's split, and of three by who is tested."""
    runs = {"ensemble, the teacher": (TEACHER, TEACHER)}
    runs |= {name: (part, name) for part in ("teachers", "table") for name in figures.names("speech", part)}
    if len(runs) == 1:
        return "Not measured: `pymimic paper speech` does it."
    columns = ("test_accuracy", DIGIT_ERROR)
    lines = [[name, *(str(figures.share("speech", *run, column)) for column in columns)] for name, run in runs.items()]
    official = f"The publisher's split:\n\n{table(['', 'frames right', 'digits wrong'], lines)}"

    tested = {one.held_out: [one.name] for one in LEFT_OUT} | {"mean of the six": [one.name for one in LEFT_OUT]}
    runs = {"ensemble": (TEACHER, TEACHER), "labels": ("table", "labels, augmented"), "T = 3": ("table", "T = 3")}
    lines = []
    for who, experiments in tested.items():
        try:
            shares = [figures.over(experiments, *run, column) for column in columns for run in runs.values()]
        except MissingError:
            continue
        lines.append([who, *map(str, shares)])
    titles = ["tested on", *(f"{what}: {run}" for what in ("frames right", "digits wrong") for run in runs)]
    return f"{official}\n\nOn a speaker never heard:\n\n{table(titles, lines)}" if lines else official


def answers_list(figures: Figures) -> str:
    """The eight answers, then what became of the paper's claims."""
    told = [f"**{answer.question}** {answer.text}" for answer in answers(figures)]
    claims = [f"- *{claim.question}* {claim.text}" for claim in reproduced(figures)]
    return "\n\n".join(
        [
            *told,
            "The paper's claims, and one on spoken digits (a difference counts if it is more than twice its standard error over seeds):",
            "\n".join(claims),
        ]
    )


def between_marks(text: str, name: str, content: str) -> str:
    """The text with that between the marks of that name."""
    begin, end = BEGIN.format(name), END.format(name)
    before, found, rest = text.partition(begin)
    _, ended, after = rest.partition(end)
    if not (found and ended):
        raise ValueError(f"expected the marks {begin} and {end}")
    return f"{before}{begin}\n\n{content}\n\n{end}{after}"


def wanted() -> dict[Path, str]:
    """Each page as it should be."""
    results = HERE / "results"
    demo = json.loads((results / "demo" / "mnist1d.json").read_text())
    defaults = json.loads((results / "defaults" / "adamw.json").read_text())
    figures = Figures({path.stem: list(csv.DictReader(path.open(newline=""))) for path in (results / "paper").glob("*.csv")})
    readme, choose, speech = README.read_text(), CHOOSE.read_text(), SPEECH.read_text()
    return {
        README: between_marks(between_marks(readme, "demo", demo_table(demo)), "paper", sets_table(figures)),
        PERFORMANCE: with_tables(PERFORMANCE.read_text(), results),
        CHOOSE: between_marks(between_marks(choose, "defaults", defaults_table(defaults)), "losses", losses_table(figures)),
        COMPRESS: between_marks(COMPRESS.read_text(), "compressed", compressed_tables(figures)),
        SPEECH: between_marks(between_marks(speech, "speech", speech_table(figures)), "digits", digits_table(figures)),
        PAPER: between_marks(PAPER.read_text(), "answers", answers_list(figures)),
    }


if __name__ == "__main__":
    for page, want in wanted().items():
        if "--check" not in sys.argv:
            page.write_text(want)
        elif page.read_text() != want:
            sys.exit(f"{page.name}: differs from results/: run python benchmarks/make_tables.py")
