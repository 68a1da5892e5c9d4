"""A net that somebody else trained, made fast: a shallow student of magika, which tells 214 types of files by 2,048 of their bytes.

    pip install ".[onnx,cli,sklearn]" magika==1.0.3
    python examples/magika_student.py /usr --out student.safetensors

The teacher is magika's own ONNX model, on the bytes that magika's own code cuts out. The student sees counts of bytes and of their pairs
and fours instead. Crops of the training files are generated cases. `docs/howto/made-fast.md` tells the whole story.
"""

import hashlib
import io
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import typer
from magika import Magika
from magika.types import Seekable
from race import microseconds, race
from scipy.special import softmax
from sklearn.decomposition import PCA

import pymimic as pm
from pymimic.onnx import teacher

MOST_BYTES = 4 << 20  # larger files are left out, as a split by content reads files whole
FLOOR = 1e-4  # below which a probability is only "very little"
PAD = 256  # magika's number for "no byte"
TEST = 26  # of 256 first bytes of a sha256: test files
CHUNK = 16  # rows whose codes fit into a core's cache
ENDS, PAIRS, FOURS, HEAD = 2 * 257, 1 << 11, 1 << 12, 1 << 11  # columns of each kind of feature
INPUTS = ENDS + PAIRS + FOURS + HEAD
magika = Magika()


def tokens(content):
    """The first and last 1,024 bytes as magika cuts them, or None where magika answers without its net: for a few bytes."""
    answer, found = magika._get_result_or_features_from_seekable(Seekable(io.BytesIO(content)))
    return None if answer else np.array(found.beg + found.end, np.float32)


def hashed(codes, columns):
    """Multiplicative hashing (Knuth) of uint32 into a power of two columns."""
    return (codes * np.uint32(2654435769)) >> np.uint32(33 - columns.bit_length())


def features(rows):
    """(B, 2048) tokens -> (B, INPUTS) float32: square roots of counts, all counted at once."""
    x = np.empty((len(rows), INPUTS), np.float32)
    for start in range(0, len(rows), CHUNK):
        byte = np.asarray(rows[start : start + CHUNK]).astype(np.uint32)
        pair = byte[:, :-1] * np.uint32(PAD + 1) + byte[:, 1:]
        four = pair[:, :-2] * np.uint32(0x01000193) ^ pair[:, 2:]
        place = np.arange(32, dtype=np.uint32) * np.uint32(PAD + 1) + byte[:, :32]
        codes = [byte[:, :1024], byte[:, 1024:] + np.uint32(PAD + 1), hashed(pair, PAIRS) + np.uint32(ENDS)]
        codes += [hashed(four, FOURS) + np.uint32(ENDS + PAIRS), hashed(place, HEAD) + np.uint32(ENDS + PAIRS + FOURS)]
        of_row = np.arange(len(byte))[:, None] * INPUTS
        counts = np.bincount((np.concatenate(codes, axis=1) + of_row).ravel(), minlength=len(byte) * INPUTS)
        np.sqrt(counts.reshape(len(byte), INPUTS).astype(np.float32), out=x[start : start + CHUNK])
    return x


class OfFeatures:
    """A transfer set of tokens, whose rows the student gets as features: `Cases` of one's own."""

    def __init__(self, cases):
        self.cases, self.inputs, self.outputs = cases, INPUTS, cases.outputs

    def __len__(self):
        return len(self.cases)

    def batch(self, indices):
        rows, logits, weights = self.cases.batch(indices)
        return features(rows), logits, weights


def contents(folders, most, per_suffix):
    """Distinct contents of the folders' files in random order, at most so many of a suffix, each with its sha256."""
    paths = [Path(at, name) for folder in folders for at, _, names in os.walk(folder) for name in names]
    paths = [path for path in sorted(set(paths)) if path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)]
    seen, suffixes = set(), Counter()
    for i in np.random.default_rng(0).permutation(len(paths)):
        if len(seen) < most and suffixes[paths[i].suffix] < per_suffix and 0 < paths[i].stat().st_size <= MOST_BYTES:
            content = paths[i].read_bytes()
            digest = hashlib.sha256(content).digest()
            if digest not in seen and tokens(content) is not None:
                seen.add(digest)
                suffixes[paths[i].suffix] += 1
                yield digest, content


def crop(content, rng):
    """A piece of the file, from anywhere to anywhere, of at least half of 2,048 bytes where there are so many."""
    start = rng.integers(max(1, len(content) - 1024))
    return content[start : rng.integers(min(start + 1024, len(content)), len(content) + 1)]


def rows_of(folders, most, per_suffix, crops):
    """Tokens to learn from, those of test files of the same mixture, and of test files as they come: a tenth of the contents, by sha256."""
    train, test, rng = [], [], np.random.default_rng(1)
    for digest, content in contents(folders, most, per_suffix):
        (test if digest[0] < TEST else train).append(tokens(content))
        if digest[0] >= TEST and rng.random() < crops and (piece := tokens(crop(content, rng))) is not None:
            train.append(piece)
    usual = [tokens(content) for digest, content in contents(folders, 0.7 * most, most) if digest[0] < TEST]
    if len(train) < 100 or not test or not usual:
        sys.exit(f"folders: expected hundreds of distinct files, got {len(train)} to learn from and {len(test)} to test on")
    return {"train": np.array(train), "mixed": np.array(test), "usual": np.array(usual)}


def learn(train, hidden, rank, epochs):
    """A student of the transfer set, its bottleneck begun by PCA."""
    student = pm.Student(INPUTS, hidden, train.outputs, rank)
    pca = PCA(rank, svd_solver="randomized", random_state=0).fit(features(train.batch(np.arange(min(4000, len(train))))[0]))
    student.set_standardisation(pca.mean_, np.ones_like(pca.mean_))
    student.set_arrays(V=pca.components_ / np.sqrt(pca.explained_variance_[:, None] + 0.05))  # whitened, as Student.initialise_bottleneck
    steps = epochs * -(-len(train) // 256)
    optimizer = pm.AdamW(pm.warm_up(pm.cosine(2e-3, steps), steps // 20))
    pm.Trainer(student, optimizer, epochs=epochs, batch_size=256, loss="distillation", temperature=2.0).fit(OfFeatures(train))
    return student


def main(
    folders: list[Path], out: Path = Path("student.safetensors"), labels: Path | None = None, files: int = 40_000, per_suffix: int = 2000,
    crops: float = 0.2, epochs: int = 12, hidden: int = 1024, rank: int = 64, batch: int = 512,
):  # fmt: skip
    """Learn from the folders' files, at most so many in all and of one suffix; test on a tenth of them.

    `labels` is a folder that keeps the teacher's answers; `crops` is a number of pieces for each file to learn from, on average.
    """
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        sys.exit(f"folders: expected folders, got {', '.join(missing)}")
    taught = teacher(magika._model_path, probabilities=True, floor=FLOOR, batch_size=32)
    print("reads the files")
    rows = rows_of(folders, files, per_suffix, crops)
    with tempfile.TemporaryDirectory() as spare:
        print(f"labels {', '.join(f'{len(part)} {name}' for name, part in rows.items())}: some 10 ms each")
        how = {"inputs_dtype": "float16", "rows_per_shard": 2048}
        sets = {name: pm.TransferSet.create((labels or Path(spare)) / name, taught, part, **how) for name, part in rows.items()}
        student = learn(sets.pop("train"), hidden, rank, epochs)
        student.save(out)
        report(student, sets)
        tested, _, _ = sets["mixed"].batch(np.arange(len(sets["mixed"])))
        race(student, features, taught, tested, batch)
        race_of_files(student, tested)


def probabilities(logits):
    """(B, C) those whose log(p + FLOOR) the logits are."""
    return softmax(logits, axis=1) * (1 + FLOOR * logits.shape[1]) - FLOOR


def answers(logits):
    """(B,) what magika tells its users: a type, or only "txt" or "unknown" where the net is not sure enough."""
    p, space = probabilities(logits), magika._model_config.target_labels_space
    best = p.argmax(axis=1)
    return np.array([magika._get_output_label_from_dl_label_and_score(space[c], row[c])[0] for row, c in zip(p, best)])


def report(student, sets):
    """Agreement with the teacher on test files, and bytes."""
    small = pm.compress(student, bits=8)
    print(f"bytes: teacher {magika._model_path.stat().st_size}, student {student.stored_nbytes}, at 8 bits {small.stored_nbytes}")
    for kind, cases in sets.items():
        rows, logits, _ = cases.batch(np.arange(len(cases)))
        sure = probabilities(logits).max(axis=1) > 0.9
        print(f"{kind}: {len(rows)} files, the teacher is sure of {sure.mean():.1%}")
        for bits, net in ((32, student), (8, small)):
            y = net.predict(features(rows))
            same = y.argmax(axis=1) == logits.argmax(axis=1)
            print(f"  {bits} bits: agreement {same.mean():.4f}, where the teacher is sure {same[sure].mean():.4f}", end="")
            print(f", of what magika tells its users {np.mean(answers(y) == answers(logits)):.4f}")


def race_of_files(student, rows):
    """The same from a whole file's bytes, which magika's own code cuts, for both."""
    content = [bytes(rows[0][rows[0] < PAD].astype(np.uint8))]
    one_row = pm.Predictor(student).predict
    slow = microseconds(lambda one: magika.identify_bytes(one[0]), content)
    fast = microseconds(lambda one: one_row(features(tokens(one[0])[None])), content)
    cut = microseconds(lambda one: tokens(one[0]), content)
    print(f"from bytes: magika {slow:.0f} us, student {fast:.0f} us, {slow / fast:.0f} times faster; magika's cut alone {cut:.0f} us")


if __name__ == "__main__":
    typer.run(main)
