"""Faults by machine: does the suite notice when something in `pymimic/` or `csrc/cpu/` is wrong?

    python tools/mutants.py --record                        which test runs which lines: takes as long as the suite
    python tools/mutants.py --count 300 --part 1/3          a third of 300 faults drawn by --seed, those that have a result left out
    python tools/mutants.py --language cpp --count 30       faults in csrc/cpu, each of which is compiled
    python tools/mutants.py --report                        what came out so far

Each fault is made in a copy of the tree, alone; then the tests run that concern it, those that take least first. Needs the extra [test] and
coverage; for C++ cmake, ninja and pybind11. Faults that change nothing a user could notice are in mutants-equivalent.txt, with the reason.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import random
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from mutation.cpp_faults import cpp_faults
from mutation.faults import Fault
from mutation.python_faults import python_faults
from mutation.tests_of_lines import Map, files_of_tests
from mutation.tree import ROOT, Outcome, Tree, preload

EQUIVALENT, LIVED = (Path(__file__).with_name(f"mutants-{which}.txt") for which in ("equivalent", "lived"))
# Without faults: what draws and prints, what measures and reports, what needs a GPU or torch.
LEFT_ALONE = (
    "pymimic/progress.py", "pymimic/tables.py", "pymimic/bench/*", "pymimic/demo/*", "pymimic/paper/*", "pymimic/backends/cuda/*",
    "pymimic/torch/*", "pymimic/commands/info.py", "*.pyi",
)  # fmt: skip
FIRST = 20  # tests of the first round
COUNTED = ("killed", "timed out", "lived")


def all_faults(tree: Tree, language: str) -> list[Fault]:
    """Every fault of the language."""
    folder, make = ("pymimic", python_faults) if language == "python" else ("csrc/cpu", cpp_faults)
    faults = []
    for file in sorted((tree.folder / folder).rglob("*")):
        path = str(file.relative_to(tree.folder))
        if file.suffix in (".py", ".h", ".cpp") and not any(fnmatch.fnmatch(path, one) for one in LEFT_ALONE):
            faults += make(path, file.read_text())
    return faults


def reasons_in(path: Path) -> dict[str, str]:
    """The reason by the fault's name."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return {name: reason for name, _, reason in (line.rpartition(" | ") for line in lines)}


def judge(tree: Tree, known: Map, fault: Fault, budget: float) -> Outcome:
    """What the tests say of one fault."""
    text = (tree.folder / fault.path).read_text()
    with tree.changed(fault.path, fault.applied(text)):
        if fault.path.startswith("csrc") and not tree.build():
            return Outcome("not compiled", 0)
        tests = known.tests(tree, fault)
        chosen = known.within(tests, budget)
        outcome = Outcome("lived", 0, "no test runs it")
        for part in filter(None, (chosen[:FIRST], chosen[FIRST:])):  # most faults die before pytest has read all files
            outcome = tree.test(part, 60 + 10 * sum(known.seconds[test] for test in part))
            if outcome.status != "lived":
                break
        if outcome.status == "lived" and tests:
            outcome = outcome._replace(test=f"{len(chosen)} of {len(tests)} tests run")
        return outcome


def report(results: dict[str, dict], reasons: dict[str, str]) -> str:
    """A table by folder, and the faults that lived."""
    counts: dict[str, Counter] = {}
    for name, result in results.items():
        if name not in reasons:
            path = name.partition(" | ")[0]
            folder = path.rpartition("/")[0] if path.count("/") > 1 else path
            counts.setdefault(folder, Counter())[result["status"]] += 1
    total = sum(counts.values(), Counter())
    lines = [f"{'':36}{'killed':>8}{'timed out':>11}{'lived':>7}"]
    for folder, count in [*sorted(counts.items()), ("all", total)]:
        lines.append(f"{folder:36}{count['killed']:8}{count['timed out']:11}{count['lived']:7}")
    counted = sum(total[status] for status in COUNTED)
    share = f"{100 * (1 - total['lived'] / max(counted, 1)):.1f} %"
    others = f"{len(results.keys() & reasons.keys())} more change nothing, {total['not compiled']} do not compile"
    lines.append(f"{counted - total['lived']} of {counted} died ({share}); {others}")
    lived = [name for name, result in results.items() if result["status"] == "lived" and name not in reasons]
    known = reasons_in(LIVED)
    lines += [f"lived: {name}  [{known.get(name, results[name]['test'])}]" for name in lived]
    return "\n".join(lines)


def drawn(asked: argparse.Namespace, faults: list[Fault], results: dict[str, dict]) -> list[Fault]:
    """Those of the faults that are asked for."""
    # without a kind none of those that only slow tests of gigabytes see
    fitting = [fault for fault in faults if (fault.kind == asked.kind if asked.kind else fault.kind != "int64_t")]
    fitting = [fault for fault in fitting if fnmatch.fnmatch(fault.path, asked.only)]
    random.Random(asked.seed).shuffle(fitting)
    if asked.again:
        fitting = [fault for fault in fitting if results.get(fault.name, {}).get("status") == "lived"]
    part, parts = map(int, asked.part.split("/"))
    return fitting[: asked.count][part - 1 :: parts]


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tests", nargs="*", help="with --record: files of tests that are new or changed; none for all")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--list", action="store_true", help="print the faults that would be made")
    parser.add_argument("--language", choices=("python", "cpp"), default="python")
    parser.add_argument("--only", default="*", metavar="GLOB", help="files, as in 'pymimic/data/*'")
    parser.add_argument("--kind", help="such as condition, default, argument or statement; int64_t in C++")
    parser.add_argument("--count", type=int, help="how many to draw; all without")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--part", default="1/1", metavar="I/N")
    parser.add_argument("--again", action="store_true", help="those that lived before, instead of a draw")
    parser.add_argument("--budget", type=float, default=60.0, metavar="SECONDS", help="of tests for one fault, as recorded")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "mutants", metavar="FOLDER", help="copy, map and results")
    asked = parser.parse_args()

    asked.work.mkdir(parents=True, exist_ok=True)
    file, reasons = asked.work / "results.json", reasons_in(EQUIVALENT)
    results: dict[str, dict] = json.loads(file.read_text()) if file.exists() else {}
    if asked.report:
        print(report(results, reasons))
        return
    tree, known = Tree(asked.work), Map(asked.work)
    if asked.record:
        known.record(tree, asked.tests)
        return
    faults = all_faults(tree, asked.language)
    kept = {fault.name for fault in faults}
    ours = "csrc/" if asked.language == "cpp" else "pymimic/"
    results = {name: result for name, result in results.items() if name in kept or not name.startswith(ours)}  # code changes
    faults = drawn(asked, faults, results)
    if asked.list:
        print(*(fault.name for fault in faults), sep="\n")
        return
    preload()
    there = tree.collected()  # tests may have gone since they were recorded
    known.seconds = {test: seconds for test, seconds in known.seconds.items() if test in there}
    if asked.language == "cpp":
        if not tree.build():
            sys.exit(f"the core does not compile, see {tree.log}")
        for test in tree.failing(files_of_tests()):  # with one instruction set
            known.seconds.pop(test, None)
    for i, fault in enumerate(faults, 1):
        if fault.name in reasons or (fault.name in results and not asked.again):
            continue
        results[fault.name] = judge(tree, known, fault, asked.budget)._asdict()
        part_file = file.with_suffix(".part")
        part_file.write_text(json.dumps(results, indent=1))
        part_file.replace(file)
        print(f"{i}/{len(faults)} {results[fault.name]['status']:9} {results[fault.name]['seconds']:6} s  {fault.name}", flush=True)
    print(report({fault.name: results[fault.name] for fault in faults if fault.name in results}, reasons))


if __name__ == "__main__":
    main()
