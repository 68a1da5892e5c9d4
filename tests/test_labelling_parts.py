"""Labelling one folder in several workers: the files are those of one, whoever is killed, and what does not agree is refused."""

import contextlib
import errno
import json
import multiprocessing
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from slope_teacher import TEACHER, contents, rows, says, uneven

from pymimic.data.records import Records
from pymimic.data.teacher import from_callable
from pymimic.data.together import _Worker
from pymimic.data.transfer import TransferSet
from pymimic.errors import ManifestError
from pymimic.progress import Progress

pytest.importorskip("fcntl")
needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork, to kill workers in a short time")
UNDER_WAY = ".labelling"
N, SHARD = 95, 20  # more than the first rows, which all agree on
WAYS = {
    "float32": {},
    "compressed": {"compress": True},
    "few bytes": {"inputs_dtype": "uint8", "inputs_range": (-6, 6), "logits_dtype": "float16"},
    "largest": {"top_logits": 2, "logits_dtype": "float16"},
    "standardised": {"standardise": True, "source": {"copies": 2}},
}


def slow(x):
    time.sleep(0.002)
    return says(x)


SLOW = from_callable(slow, "slope")


@pytest.fixture(autouse=True)
def without_waiting_for_the_disk(monkeypatch):
    """No test here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def create(folder, part=None, inputs=None, teacher=SLOW, weights=None, **more):
    x = rows(N) if inputs is None else inputs
    return TransferSet.create(folder, teacher, x, weights, rows_per_shard=SHARD, part=part, progress=False, **more)


def whole(folder, **more):
    """The files of one process, and how many rows there are."""
    create(folder, teacher=TEACHER, **more)
    return contents(folder)


def in_threads(n, call):
    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(call, range(n)))


def forked(function, *arguments):
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    return process


def stops(x, row):
    yield x[:row]
    raise KeyboardInterrupt


def wait_for(path):
    while not path.exists():
        time.sleep(0.001)


def dies(x):
    os.kill(os.getpid(), signal.SIGKILL)


# The same files


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("iterable", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("way", WAYS)
def test_the_files_are_those_of_one_process(tmp_path, way, n, iterable, weighted):
    weights = np.random.default_rng(1).random(N, np.float32) if weighted else None
    expected = whole(tmp_path / "one", weights=weights, **WAYS[way])

    def work(i):
        x = uneven(rows(N)) if iterable else rows(N)
        w = uneven(weights) if iterable and weighted else weights
        return create(tmp_path / "set", (i, n), x, weights=w, **WAYS[way])

    sets = in_threads(n, work)
    assert contents(tmp_path / "set") == expected
    assert [len(one) for one in sets] == [N] * n
    TransferSet.open(tmp_path / "set")  # with sums


def test_each_labels_shards_of_its_own_and_no_shard_is_labelled_twice(tmp_path):
    labelled = [[], []]
    both = threading.Barrier(2)

    def work(i):
        def teacher(x):
            if len(x) == SHARD:
                if not labelled[i]:
                    both.wait(20)  # both have begun
                labelled[i].append(int(x[0, 0]))
            return slow(x)

        x = np.repeat(np.arange(200, dtype=np.float32)[:, None] // SHARD, 5, axis=1)
        return create(tmp_path / "set", (i, 2), x, from_callable(teacher, "slope"))

    in_threads(2, work)
    assert sorted(labelled[0] + labelled[1]) == list(range(10))
    assert labelled[0][0] % 2 == 0
    assert labelled[1][0] % 2 == 1


def test_a_worker_that_comes_late_compares_and_opens_the_set(tmp_path):
    expected = whole(tmp_path)
    asked = []
    teacher = from_callable(lambda x: asked.append(len(x)) or says(x), "slope")
    assert len(create(tmp_path, (1, 2), teacher=teacher)) == N
    assert asked == [16, 15]  # of the first shard and of the last
    with pytest.raises(ManifestError, match=r"inputs: expected the rows in .*inputs-00000.npy, got others"):
        create(tmp_path, (1, 2), rows(N, seed=1))
    assert contents(tmp_path) == expected


def test_a_set_is_saved_by_several(tmp_path):
    whole = TransferSet(rows(N), says(rows(N)), np.ones(N, np.float32))
    more = {"rows_per_shard": SHARD, "progress": False, "compress": True}
    whole.save(tmp_path / "one", **more)
    in_threads(2, lambda i: whole.save(tmp_path / "set", part=(i, 2), **more))
    assert contents(tmp_path / "set") == contents(tmp_path / "one")


@pytest.mark.parametrize("stopped", [False, True])
def test_a_set_of_other_logits_in_any_row_is_not_saved_by_several(tmp_path, stopped, monkeypatch):
    """Whether the shards stand there when a worker comes, or another one writes them meanwhile."""
    t = says(rows(N))
    other = t.copy()
    other[50] += 2**-8
    if stopped:
        of, shards = Records.write, iter(range(8))  # inputs and logits of four shards
        monkeypatch.setattr(Records, "write", lambda *given: (next(shards), of(*given)))
        with pytest.raises(StopIteration):
            TransferSet(rows(N), t).save(tmp_path, rows_per_shard=SHARD, part=(0, 2))
        monkeypatch.setattr(Records, "write", of)
        with pytest.raises(ManifestError, match=r"^logits: expected the rows in .*logits-00002.npy, got another in row 50: "):
            TransferSet(rows(N), other).save(tmp_path, rows_per_shard=SHARD, part=(1, 2))
    else:
        met, label = threading.Barrier(2), _Worker._label

        def meets(worker, shard, inputs):
            if shard < 2:
                met.wait(20)  # each worker writes one of the first two
            label(worker, shard, inputs)

        def work(i):
            try:
                return TransferSet(rows(N), other if i else t).save(tmp_path, rows_per_shard=SHARD, part=(i, 2))
            except ManifestError as error:
                return error

        monkeypatch.setattr(_Worker, "_label", meets)
        made = in_threads(2, work)
        found = [str(error) for error in made if isinstance(error, ManifestError)]
        assert found
        assert all("logits: expected the rows in " in error and "in row 50: " in error for error in found)
        for one, logits in zip(made, (t, other)):
            assert isinstance(one, ManifestError) or np.array_equal(one.batch(np.arange(N))[1], logits)


# Stopping, dying, going on


@needs_fork
@pytest.mark.parametrize("iterable", [False, True])
def test_what_a_killed_worker_had_claimed_is_taken_up(tmp_path, iterable):
    """It dies in its second shard, while another waits for it."""
    expected = whole(tmp_path / "one")
    folder, asked = tmp_path / "set", []

    def inputs():
        return uneven(rows(N)) if iterable else rows(N)

    def first():
        def teacher(x):
            asked.append(len(x))
            if len(asked) == 3:
                (tmp_path / "claimed").touch()
                time.sleep(60)
            return says(x)

        create(folder, (0, 2), inputs(), from_callable(teacher, "slope"))

    process = forked(first)
    wait_for(tmp_path / "claimed")
    waits = threading.Timer(0.3, process.kill)
    waits.start()
    began = time.monotonic()
    create(folder, (1, 2), inputs())
    assert time.monotonic() - began > 0.2  # it waited
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert contents(folder) == expected


@needs_fork
def test_a_child_of_a_killed_worker_holds_no_claim(tmp_path):
    """As a teacher may have forked workers of its own, which outlive it."""
    expected = whole(tmp_path / "one")

    def first():
        def teacher(x):
            if (child := os.fork()) == 0:
                time.sleep(60)
                os._exit(0)
            (tmp_path / "child.part").write_text(str(child))
            os.replace(tmp_path / "child.part", tmp_path / "child")
            dies(x)

        create(tmp_path / "set", (0, 2), teacher=from_callable(teacher, "slope"))

    process = forked(first)
    process.join()
    try:
        create(tmp_path / "set", (1, 2))
    finally:
        os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert contents(tmp_path / "set") == expected


def killed_at(folder, call, part, **more):
    """A worker that is killed at that call of os.replace; whether there were so many."""

    def work():
        calls, replace = [], os.replace

        def deadly(source, target):
            if len(calls) == call:
                dies(None)
            calls.append(target)
            replace(source, target)

        os.replace = deadly
        TransferSet.create(folder, TEACHER, rows(25), rows_per_shard=10, part=part, progress=False, **more)

    process = forked(work)
    process.join()
    return process.exitcode == -signal.SIGKILL


@needs_fork
@pytest.mark.parametrize("call", range(24))
def test_killed_at_any_step_it_goes_on_to_the_same_files(tmp_path, call):
    """Four steps for the first rows, four a shard, six files that are moved, and the manifest; of one process, four a shard and one."""
    TransferSet.create(tmp_path / "one", TEACHER, rows(25), rows_per_shard=10)
    for before, after, steps in (((0, 2), (0, 1), 23), ((0, 2), None, 23), (None, (0, 1), 13)):
        folder = tmp_path / f"{before} {after}"
        assert killed_at(folder, call, before) == (call < steps)
        if call < steps:
            with pytest.raises((ManifestError, FileNotFoundError)):
                TransferSet.open(folder)
        TransferSet.create(folder, TEACHER, rows(25), rows_per_shard=10, part=after)
        assert contents(folder) == contents(tmp_path / "one")


@needs_fork
@pytest.mark.parametrize("part", [(0, 2), None])
def test_what_a_worker_left_that_was_killed_at_the_very_end_is_removed(tmp_path, part):
    expected = whole(tmp_path / "one")

    def work():
        os.unlink = dies
        create(tmp_path / "set", (0, 2))

    killed = forked(work)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert (tmp_path / "set" / UNDER_WAY).is_dir()
    assert len(TransferSet.open(tmp_path / "set")) == N
    create(tmp_path / "set", part)
    assert contents(tmp_path / "set") == expected


@needs_fork
@pytest.mark.slow
def test_killed_at_any_moment_three_workers_go_on_to_the_same_files(tmp_path):
    expected, delay, killed = whole(tmp_path / "one"), np.random.default_rng(0), 0
    folder = tmp_path / "set"
    for attempt in range(60):
        workers = [forked(create, folder, (i, 3), (uneven(rows(N)) if attempt % 2 else rows(N))) for i in range(3)]
        for worker in delay.permutation(workers)[:2]:
            time.sleep(delay.uniform(0, 0.05))
            worker.kill()
        for worker in workers:
            worker.join(60)
            assert worker.exitcode is not None
        killed += sum(worker.exitcode == -signal.SIGKILL for worker in workers)
        assert {worker.exitcode for worker in workers} <= {0, -signal.SIGKILL}
        create(folder, (0, 1))
        assert contents(folder) == expected
        for path in folder.iterdir():
            path.unlink()
    assert killed >= 30


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, MemoryError])
def test_a_worker_that_fails_leaves_whole_shards_and_the_others_finish_its_part(tmp_path, error):
    expected = whole(tmp_path / "one")
    folder, asked, failed = tmp_path / "set", [], threading.Event()

    def teacher(x):
        asked.append(len(x))
        if len(asked) == 3:
            failed.set()
            raise error("tired")
        return says(x)

    def other(x):
        failed.wait(20)
        return says(x)

    def work(i):
        if i:
            wait_for(folder / UNDER_WAY / "00000.json")
            return create(folder, (1, 2), teacher=from_callable(other, "slope"))
        with pytest.raises(error, match="tired"):
            create(folder, (0, 2), teacher=from_callable(teacher, "slope"))

    in_threads(2, work)
    assert contents(folder) == expected


@pytest.mark.parametrize(
    ("before", "after", "calls"),
    [
        (None, (1, 3), 4),  # the first rows, two shards that are compared, one that is missing
        ((1, 3), None, 5),  # two are missing, as the first rows had been asked for
        ((1, 3), (0, 2), 5),
    ],
)
def test_a_set_is_gone_on_with_in_another_way(tmp_path, before, after, calls):
    """Begun by one and finished by several, or the other way round."""
    expected = whole(tmp_path / "one", standardise=True)
    folder, asked = tmp_path / "set", []

    def tired(x):
        asked.append(len(x))
        if len(asked) == 5:
            raise KeyboardInterrupt
        return says(x)

    with pytest.raises(KeyboardInterrupt):
        create(folder, before, teacher=from_callable(tired, "slope"), standardise=True)
    with pytest.raises(ManifestError, match="expected a complete set, got "):
        TransferSet.open(folder)
    again = []
    create(folder, after, teacher=from_callable(lambda x: again.append(len(x)) or says(x), "slope"), standardise=True)
    assert len(again) == calls
    assert contents(folder) == expected


def test_the_first_worker_shows_how_far_all_are(tmp_path, monkeypatch):
    shown = {}
    monkeypatch.setattr("pymimic.progress._can_draw", lambda file: True)
    monkeypatch.setattr(Progress, "close", lambda bar: shown.update({bar: (bar.disable, bar.n)}))
    monkeypatch.setattr(Progress, "display", lambda bar, *given, **more: None)
    for part in ((0, 2), (1, 2)):
        with pytest.raises(KeyboardInterrupt):
            TransferSet.create(tmp_path, TEACHER, stops(rows(N), 60), rows_per_shard=SHARD, part=part)
    TransferSet.create(tmp_path, TEACHER, rows(N), rows_per_shard=SHARD, part=(0, 2))
    assert list(shown.values()) == [(False, 60), (True, 0), (False, N)]


# What does not agree


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": from_callable(says, "other")}, "^teacher.name: expected 'slope', as .*manifest.json says, got '[^']*'$"),
        ({"teacher": from_callable(lambda x: -says(x), "slope")}, "^teacher: expected the logits in .*logits-00000.npy again"),
        ({"teacher": from_callable(lambda x: says(x)[:, :2], "slope")}, "^teacher: expected 3 columns"),
        ({"source": "munge"}, "^source: expected None"),
        ({"logits_dtype": "float16"}, "^storage: expected None"),
        ({"inputs": rows(N, seed=1)}, "^inputs: expected the rows in .*inputs-00000.npy, got others"),
        ({"inputs": rows(N)[:, :4].copy()}, "^inputs: expected the rows in .*inputs-00000.npy, got others"),
        ({"inputs": rows(0)}, "^inputs: expected at least one row, got none"),
        ({"weights": np.ones(N, np.float32)}, "^weighted: expected False"),
    ],
)
def test_workers_must_agree(tmp_path, change, message):
    """Found before the second labels anything, while the first one labels; and that one is not disturbed."""
    expected = whole(tmp_path / "one")
    folder, refused = tmp_path / "set", threading.Event()

    def teacher(x):
        if (folder / UNDER_WAY / "00000.json").exists():
            refused.wait(20)
        return says(x)

    def work(i):
        if i == 0:
            return create(folder, (0, 2), teacher=from_callable(teacher, "slope"))
        wait_for(folder / UNDER_WAY / "00000.json")
        try:
            with pytest.raises((ManifestError, ValueError), match=message):
                create(folder, (1, 2), **change)
        finally:
            refused.set()

    in_threads(2, work)
    assert contents(folder) == expected


def test_rows_that_differ_later_are_found_where_they_come_by_themselves(tmp_path):
    """Generators of cases with another seed in each process, behind the same rows."""
    first, met = rows(N), threading.Event()
    other = np.concatenate([first[:40], rows(55, seed=1)])

    def teacher(x):
        if np.array_equal(x[0], first[80]):
            met.set()
        return says(x)

    def work(i):
        if i == 0:
            return create(tmp_path / "set", (0, 2), uneven(first), from_callable(teacher, "slope"))
        met.wait(20)
        with pytest.raises(ManifestError, match=r"^inputs: expected the rows in .*inputs-00002.npy, got others"):
            create(tmp_path / "set", (1, 2), uneven(other))

    in_threads(2, work)
    assert np.array_equal(TransferSet.open(tmp_path / "set").batch(np.arange(N))[0], first)


@pytest.mark.parametrize("iterable", [False, True])
@pytest.mark.parametrize("count", [93, 80, 96, 120])
def test_a_worker_with_more_rows_or_fewer_is_refused(tmp_path, count, iterable):
    """Whichever labels the last shard has its way; the other is told."""
    errors, x = [], {0: rows(120)[:N], 1: rows(120)[:count]}

    def work(i):
        try:
            create(tmp_path / "set", (i, 2), uneven(x[i]) if iterable else x[i])
        except ManifestError as error:
            errors.append(str(error))

    in_threads(2, work)
    assert errors
    assert all(error.startswith("inputs: expected") for error in errors)
    with contextlib.suppress(ManifestError):  # both were refused
        assert len(TransferSet.open(tmp_path / "set")) in (N, count)


def test_a_worker_that_has_given_all_its_rows_is_told_that_another_gave_more(tmp_path):
    """The other goes on while the first waits for it."""
    ended = threading.Event()

    def inputs(i):
        yield rows(N)[:80]
        if i == 1:
            ended.set()
            return
        ended.wait(20)
        time.sleep(0.3)  # the other waits by now; if not, it is told all the same
        yield rows(N)[80:]

    def work(i):
        if i == 0:
            return create(tmp_path / "set", (0, 2), inputs(0))
        with pytest.raises(ManifestError, match=r"^inputs: expected 95 rows, as in .*set, got 80$"):
            create(tmp_path / "set", (1, 2), inputs(1))

    in_threads(2, work)
    assert len(TransferSet.open(tmp_path / "set")) == N


def test_what_was_begun_binds_nobody_before_a_shard_is_labelled(tmp_path):
    def tired(x):
        (tmp_path / "asked").touch()
        raise KeyboardInterrupt

    for part in ((0, 2), (1, 2)):
        with pytest.raises(KeyboardInterrupt):
            create(tmp_path / "set", part, rows(50), from_callable(tired, "slope"))
        assert contents(tmp_path / "set") == {}
    create(tmp_path / "set", (0, 2), teacher=from_callable(says, "another"))
    assert json.loads((tmp_path / "set" / "manifest.json").read_text())["teacher"]["name"] == "another"


@needs_fork
def test_a_worker_killed_in_its_first_shard_binds_nobody(tmp_path):
    asked = []
    killed = forked(
        create, tmp_path, (0, 2), rows(50, seed=1), from_callable(lambda x: dies(x) if asked else asked.append(1) or says(x), "slope")
    )
    killed.join()
    assert (tmp_path / UNDER_WAY / "00000.json").exists()
    with pytest.raises(ManifestError, match=r"expected a complete set, got one that create\(part=\) has not finished"):
        TransferSet.open(tmp_path)
    create(tmp_path, (0, 2), teacher=from_callable(says, "another"))
    assert np.array_equal(TransferSet.open(tmp_path).batch(np.arange(N))[0], rows(N))


# One process, and several


def test_one_process_and_several_keep_each_other_out(tmp_path):
    met = []

    def nosy(part):
        def teacher(x):
            with pytest.raises(BlockingIOError, match="expected a folder that nobody else labels into") as caught:
                create(tmp_path / "set", part)
            met.append(caught.value.filename)
            return says(x)

        return from_callable(teacher, "slope")

    create(tmp_path / "set", None, teacher=nosy((0, 2)))
    assert len(met) == 5
    for path in (tmp_path / "set").iterdir():
        path.unlink()
    create(tmp_path / "set", (0, 2), teacher=nosy(None))
    assert met == [str(tmp_path / "set")] * 11  # and the first rows, which all agree on
    assert not (tmp_path / "set" / UNDER_WAY).exists()


def test_files_of_the_users_own_are_neither_overwritten_nor_removed(tmp_path):
    (tmp_path / "logits-00003.npy").write_text("mine")
    before, asked = contents(tmp_path), []
    teacher = from_callable(lambda x: asked.append(1) or says(x), "slope")
    with pytest.raises(FileExistsError, match=r"got logits-00003.npy, and no manifest.json is there"):
        create(tmp_path, (0, 2), teacher=teacher)
    assert asked == []
    assert contents(tmp_path) == before
    (tmp_path / "logits-00003.npy").unlink()
    (tmp_path / "weights-00000.npy").write_text("mine")  # a name that this set does not need
    (tmp_path / UNDER_WAY).mkdir()
    (tmp_path / UNDER_WAY / "notes.txt").write_text("mine")

    def late(x):
        (tmp_path / "inputs-00002.npy").write_text("mine")
        return says(x)

    with pytest.raises(FileExistsError, match=r"got inputs-00002.npy, and no manifest.json is there"):
        create(tmp_path, (0, 2), teacher=from_callable(late, "slope"))
    assert (tmp_path / "inputs-00002.npy").read_text() == "mine"
    (tmp_path / "inputs-00002.npy").unlink()
    create(tmp_path, (0, 2), teacher=teacher)
    assert len(asked) == 3  # the first rows, the first shard and the last one: all are labelled
    assert (tmp_path / "weights-00000.npy").read_text() == "mine"
    assert contents(tmp_path / UNDER_WAY) == {"notes.txt": b"mine"}


@pytest.mark.parametrize("name", [UNDER_WAY, f"{UNDER_WAY}/first", f"{UNDER_WAY}/turn.lock"])
def test_a_link_leads_to_no_other_folder(tmp_path, name):
    folder, other, link = tmp_path / "set", tmp_path / "other", tmp_path / "set" / name
    TransferSet.create(other, TEACHER, rows(N), rows_per_shard=SHARD, progress=False)
    (other / "00000.json").write_text("mine")
    (other / "00000.lock").write_text("mine")
    before = contents(other)
    link.parent.mkdir(parents=True)
    link.symlink_to(other / "00000.lock" if name.endswith("lock") else other)
    with pytest.raises(OSError, match=r"got a link|symbolic links") as caught:
        create(folder, (0, 2))
    assert caught.value.filename == str(link)
    assert contents(other) == before


@pytest.mark.parametrize("name", ["inputs-00002.npy", "logits-00002.npy"])
def test_a_link_among_what_is_under_way_is_not_written_through(tmp_path, name):
    def stopping():
        yield rows(N)[: 2 * SHARD]
        raise KeyboardInterrupt

    folder, mine = tmp_path / "set", tmp_path / "mine"
    with pytest.raises(KeyboardInterrupt):
        create(folder, (0, 1), stopping())
    mine.write_text("mine")
    (folder / UNDER_WAY / name).symlink_to(mine)
    with pytest.raises(FileExistsError, match="expected a file, or none, got a link") as caught:
        create(folder, (0, 1))
    assert caught.value.filename == str(folder / UNDER_WAY / name)
    assert mine.read_text() == "mine"
    (folder / UNDER_WAY / name).unlink()
    assert len(create(folder, (0, 1))) == N


def test_a_complete_set_removes_nothing_through_a_link(tmp_path):
    whole(tmp_path / "set")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "logits-00000.npy").write_text("mine")
    (tmp_path / "set" / UNDER_WAY).symlink_to(tmp_path / "other")
    create(tmp_path / "set", teacher=TEACHER)
    assert contents(tmp_path / "other") == {"logits-00000.npy": b"mine"}


def test_where_there_are_no_locks_there_are_no_parts(tmp_path, monkeypatch):
    import fcntl

    expected = whole(tmp_path / "one")
    asked = []

    def tired(x):
        asked.append(1)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return says(x)

    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    with pytest.raises(KeyboardInterrupt):
        create(tmp_path / "begun", (0, 2), teacher=from_callable(tired, "slope"))
    monkeypatch.setattr(fcntl, "flock", unsupported)
    for name in ("set", "begun"):
        with pytest.raises(OSError, match="part: expected a folder on a file system that knows locks") as caught:
            create(tmp_path / name, (0, 2))
        assert (caught.value.errno, caught.value.filename) == (errno.ENOLCK, str(tmp_path / name))
        assert (tmp_path / name / UNDER_WAY).exists() == (name == "begun")
    create(tmp_path / "begun")  # what several have begun one finishes
    assert contents(tmp_path / "begun") == expected


# The argument


@pytest.mark.parametrize("part", [(2, 2), (-1, 2), (0, 0), [3, 1]])
def test_a_part_that_is_none_is_refused(tmp_path, part):
    with pytest.raises(ValueError, match=r'^part: expected two ints \(i, n\), 0 <= i < n, "auto" or None, got '):
        create(tmp_path / "set", part)
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("part", [3, "all", (0,), (0, 1, 2), (0.0, 1), (False, True), {0, 1}, np.arange(2), b"auto"])
def test_what_is_no_part_is_refused(tmp_path, part):
    with pytest.raises(TypeError, match=r'^part: expected two ints \(i, n\), 0 <= i < n, "auto" or None, got '):
        create(tmp_path / "set", part)
    assert not (tmp_path / "set").exists()


def test_auto_is_what_the_launcher_says(tmp_path, monkeypatch):
    expected = whole(tmp_path / "one")
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    create(tmp_path / "alone", "auto")
    assert contents(tmp_path / "alone") == expected
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(ValueError, match=r"part: expected ints in RANK and WORLD_SIZE of the environment, .* got '1' and None"):
        create(tmp_path / "set", "auto")
    monkeypatch.setenv("WORLD_SIZE", "2")
    order = []
    teacher = from_callable(lambda x: order.append(x[0]) or says(x), "slope")
    create(tmp_path / "set", "auto", teacher=teacher)
    assert contents(tmp_path / "set") == expected
    assert np.array_equal(order[1], rows(N)[SHARD])  # after the first rows, which all agree on, its own first shard
    create(tmp_path / "numpy", (np.int64(0), np.int32(1)))
    assert contents(tmp_path / "numpy") == expected
