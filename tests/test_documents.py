"""What the documents show works as it stands: blocks run, command lines parse, links lead somewhere, and the README can be finished."""

import importlib.util
import math
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

import pymimic
from pymimic.training.loop import Run

ROOT = Path(__file__).parents[1]
if not (ROOT / "docs").is_dir():
    pytest.skip("not a checkout", allow_module_level=True)

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [*PAGES, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"]
FIRST = [ROOT / "README.md", ROOT / "docs" / "index.md"]  # with a first student
NOT_RUN = 'title="not run: '
MOST_NOT_RUN = 5
CHEAP = ("info",)  # commands that are run, and not only parsed


class Block(NamedTuple):
    """A fenced block of a page."""

    line: int  # of its first line of code, from 1
    language: str
    attributes: str  # what stands behind the language
    code: str


def blocks(page):
    """The fenced blocks of a page, in order."""
    found, opened, code = [], None, []
    for number, line in enumerate(page.read_text().splitlines(), 1):
        fence = re.match(r"```(.*)$", line)
        if fence is None:
            code.append(line)
        elif opened is None:
            opened, code = (number + 1, *(fence[1].strip() + " ").split(" ", 1)), []
        else:
            found.append(Block(*(part.strip() if isinstance(part, str) else part for part in opened), "\n".join(code)))
            opened = None
    assert opened is None, f"{page}: a fence that is not closed"
    return found


def name(page):
    return str(page.relative_to(ROOT))


def python_blocks(page):
    return [block for block in blocks(page) if block.language == "python" and NOT_RUN not in block.attributes]


@pytest.fixture
def useful_runs(monkeypatch):
    """A run warns where it ends with a loss above that of the same answer for every row, though it made the net better."""
    useless = Run.useless

    def strictly(run):
        run._began = None if run._began is None else -math.inf
        return useless(run)

    monkeypatch.setattr(Run, "useless", strictly)


@pytest.mark.usefixtures("useful_runs")
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("page", [page for page in PAGES if python_blocks(page) and page not in FIRST], ids=name)
def test_python_blocks_run(page, tmp_path, monkeypatch, threads):
    """One after the other, as a reader would run them: in one namespace and one folder."""
    pytest.importorskip("sklearn")
    if "import pymimic.torch" in page.read_text():
        pytest.importorskip("torch")
    if "from magika" in page.read_text():
        pytest.importorskip("magika")
    if "import onnxruntime" in page.read_text():
        pytest.importorskip("onnxruntime")
    if "from pymimic.speech" in page.read_text():
        pytest.importorskip("librosa")
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in python_blocks(page):
        exec(compile("\n" * (block.line - 1) + block.code, page, "exec"), namespace)


@pytest.mark.usefixtures("useful_runs")
@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("page", FIRST, ids=name)
def test_the_first_student_learns_and_the_shell_gives_the_same(page, tmp_path, monkeypatch, capsys):
    """What is shown beside the block is what it prints, up to another instruction set's rounding."""
    pytest.importorskip("typer")
    from pymimic import cli

    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for block in python_blocks(page):
        exec(compile(block.code, page, "exec"), namespace)
    said = capsys.readouterr()
    assert "Warning" not in said.err
    printed = dict(re.findall(r"^(.+): (\d\.\d+)$", said.out, re.MULTILINE))
    shown = [dict(re.findall(r"^(.+): (\d\.\d+)$", block.code, re.MULTILINE)) for block in blocks(page) if block.language == "text"]
    shown = {key: value for found in shown for key, value in found.items()}
    assert shown.keys() == printed.keys()
    bounds = {key: 0.0015 if len(value) == len("0.123") else 0.025 for key, value in shown.items()}
    assert all(abs(float(printed[key]) - float(value)) < bounds[key] for key, value in shown.items())
    assert all(float(value) > 0.9 for key, value in printed.items() if key.startswith("same class"))
    assert any(key.startswith("same class") for key in printed)
    (command,) = [words[1:] for words in command_lines(page) if words[:2] == ["pymimic", "distill"]]
    library = pymimic.Student.load("student.safetensors").arrays()
    with pytest.raises(SystemExit) as stopped:
        cli.run(command)
    assert stopped.value.code == 0
    shell = pymimic.Student.load("student.safetensors").arrays()
    assert all((library[key] == shell[key]).all() for key in library)


def test_what_is_not_run_says_why():
    marked = [(name(page), block.attributes) for page in PAGES for block in blocks(page) if "not run" in block.attributes]
    assert all(re.fullmatch(rf'{NOT_RUN}\w[^"]+"', attributes) for _, attributes in marked), marked
    assert len(marked) <= MOST_NOT_RUN, marked


def command_lines(page):
    """The lines of a page's shell blocks, as words."""
    lines = [line for block in blocks(page) if block.language == "sh" for line in block.code.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [part for line in words if line for part in split_at(line, "&&")]


def split_at(words, separator):
    parts = [[]]
    for word in words:
        if word == separator:
            parts.append([])
        else:
            parts[-1].append(word)
    return parts


@pytest.mark.parametrize("page", [page for page in DOCUMENTS if command_lines(page)], ids=name)
def test_command_lines_can_be_typed(page, capsys):
    typer = pytest.importorskip("typer")
    from pymimic import cli

    commands = typer.main.get_command(cli.app).commands
    for program, *words in command_lines(page):
        if program == "torchrun" and "-m" in words:
            program, *words = words[words.index("-m") + 1 :]
        if program == "pymimic":
            assert words[0] in commands, words
            commands[words[0]].make_context(words[0], list(words[1:]))
            if words[0] in CHEAP:
                with pytest.raises(SystemExit) as stopped:
                    cli.run(words)
                assert stopped.value.code == 0
        elif program in ("python", "torchrun"):
            words = words if program == "python" else words[words.index("2") + 1 :]
            assert (ROOT / words[0]).is_file(), words
        else:
            assert program in ("pip", "pytest", "mkdocs"), program
            extras = re.findall(r"\.\[(\w+)\]", " ".join(words))
            assert all(re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE) for extra in extras), words


def test_every_option_is_on_a_page():
    typer = pytest.importorskip("typer")
    from pymimic import cli

    text = "\n".join(page.read_text() for page in DOCUMENTS)
    for command in typer.main.get_command(cli.app).commands.values():
        options = [
            option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts) if option.startswith("--")
        ]
        for option in options:
            assert re.search(rf"{option}(?![\w-])", text), f"{command.name} {option}"


@pytest.mark.parametrize("page", DOCUMENTS, ids=name)
def test_relative_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"[a-z]+:", target):
            file, _, anchor = target.partition("#")
            aim = page if not file else (page.parent / file)
            assert aim.exists(), target
            assert not anchor or anchor in anchors(aim), target


def anchors(page):
    """Of the headings of a page, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_scripts_that_documents_name_exist():
    for page in DOCUMENTS:
        for path in re.findall(r"`((?:examples|benchmarks|tools|tests|pymimic|csrc|kernels|docs)/[\w./-]*)`", page.read_text()):
            assert (ROOT / path).exists(), f"{name(page)}: {path}"


def test_the_plan_that_is_shown_is_the_plan():
    assert str(pymimic.plan(512, 1845, 250, 8000, 183)) in (ROOT / "docs" / "concepts" / "plans.md").read_text()


def test_nobody_is_told_to_install_from_pypi():
    """The package of that name there is another project's."""
    for file in [*DOCUMENTS, *(ROOT / "pymimic").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]:
        assert not re.search(r"pip install[^`\n]*[\s\"']pymimic\b(?! )", file.read_text()), file


def test_every_extra_is_listed():
    extras = re.search(r"^\[project.optional-dependencies\]\n(.+?)\n\n", (ROOT / "pyproject.toml").read_text(), re.MULTILINE | re.DOTALL)[1]
    listed = re.findall(r"^\| `(\w+)` \|", (ROOT / "docs" / "index.md").read_text(), re.MULTILINE)
    assert listed == re.findall(r"^(\w+) = \[", extras, re.MULTILINE)


def test_every_public_name_is_in_the_reference():
    reference = "".join(page.read_text() for page in (ROOT / "docs" / "api").glob("*.md"))
    assert [public for public in pymimic.__all__ if not re.search(rf"^::: pymimic\.(plan\.)?{public}$", reference, re.MULTILINE)] == []


def test_every_page_is_in_the_site():
    nav = (ROOT / "mkdocs.yml").read_text()
    assert [page for page in PAGES[1:] if str(page.relative_to(ROOT / "docs")) not in nav] == []


def test_docstrings_are_read_as_numpydoc():
    pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("docstrings", ROOT / "tools" / "docstrings.py")
    docstrings = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(docstrings)
    text = """\
Says.

Parameters
----------
x, y : both
    of them
z : one

Returns
-------
A sum: x + y.

Raises
------
ValueError
    Never.
"""
    wanted = """\
Says.

Parameters
----------
x
    both
    of them
y
    both
    of them
z
    one

Returns
-------
Array
    A sum: x + y.

Raises
------
ValueError
    Never.
"""
    assert docstrings.rewritten(text, "Array") == wanted


def test_readme_can_be_finished():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 135
