"""TIMIT in the setting of Ba & Caruana (2014), and the same on a synthetic corpus for those who have no TIMIT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from ..backends.interface import Array
from ..data.teacher import Teacher
from ..demo.datasets import Rows
from ..demo.recipes import Recipe
from ..demo.setting import Seeds, Setting, Shape
from ..demo.students import Training
from ..packages import package
from ..speech import synthetic
from ..speech.recordings import Recording, read
from ..speech.scoring import STATE_COUNT, Decoder, phone_error_rate
from ..speech.timit import Corpus, Utterance, open_corpus
from ..speech.windows import Frames
from ..training.convolution import Convolution
from .cases import named
from .experiment import Experiment, Run
from .frames import FrameConvRecipe, FrameData, FrameDeepRecipe, FrameSetting

PHONE_ERROR = "phone error"
PAPERS = {  # phone error in per cent on TIMIT's core test, as Ba & Caruana (2014) give it
    "DNN": 21.9, "CNN": 19.5, "ECNN": 18.5, "SNN-8k on labels": 23.1, "SNN-400k on labels": 23.6, "SNN-MIMIC-8k": 21.6,
    "SNN-MIMIC-400k": 20.0,
}  # fmt: skip
PAPERS_FIGURES = "Ba & Caruana (2014), phone error on TIMIT: " + ", ".join(f"{net} {error} %" for net, error in PAPERS.items()) + "."
_SPEAKERS = {"train": 100, "development": 8, "test": 16}  # of the synthetic corpus
_FEW_SPEAKERS = {"train": 4, "development": 2, "test": 2}
_FEW = 8  # sentences of each part, where it is to be fast
_PARTS = ("train", "unlabelled", "development", "test")
_CNN = FrameConvRecipe(
    epochs=20, nets=3, batch_size=128, learning_rate=1e-3, weight_decay=0.01, beta2=0.99, ema=0.99, dropout=0.4, input_dropout=0.1,
    convolutions=(Convolution(64, (8, 15), (2, 1)),), hidden=(512, 512),  # along the filters, all frames at once
)  # fmt: skip
_DNN = FrameDeepRecipe(
    epochs=8, batch_size=128, learning_rate=1e-3, weight_decay=0.01, beta2=0.99, ema=0.99, dropout=0.3, input_dropout=0.1,
    hidden=(1000, 1000, 1000),
)  # fmt: skip
_LABELS = [Training("cross_entropy", 1e-3, epochs, 128, dropout=p) for epochs, p in ((6, 0.3), (6, 0.5), (12, 0.5))]
_MIMIC = Training("distillation", 1e-3, 3, 128, temperature=2.0)  # nearer to the teacher than squared error in as many steps
_SQUARED = replace(_MIMIC, loss="mimic", temperature=1.0)
_WIDE_LABELS, _WIDE_MIMIC = (replace(how, learning_rate=5e-4) for how in (_LABELS[0], _MIMIC))
_NARROW, _WIDE = Shape(8_000, 250), Shape(50_000, 250)


class SentenceSetting(FrameSetting):
    """As `FrameSetting`, with the sentences that the frames are of, and what decodes them.

    Parameters
    ----------
    sentences : of "train", "unlabelled", "development" and "test"
    every : of the frames to train on, and of the unlabelled ones, one in so many is a row
    """

    def __init__(self, sentences: dict[str, list[Recording]], every: tuple[int, int], how: Recipe, seeds: Seeds, device: str) -> None:
        self.sentences = sentences
        flat = [one for part in _PARTS for one in sentences[part]]
        frames, states = Frames([one.features for one in flat]), np.concatenate([one.states for one in flat])
        ends = np.cumsum([sum(len(one.states) for one in sentences[part]) for part in _PARTS])
        rows = []
        for part, end, step in zip(_PARTS, ends, (*every, 1, 1)):
            x = np.arange(end - sum(len(one.states) for one in sentences[part]), end)[step // 2 :: step]
            rows.append(Rows(x, states[x]))
        train, unlabelled, development, test = rows
        super().__init__(FrameData("timit", STATE_COUNT, train, development, test, unlabelled, frames), how, seeds, device)

    @cached_property
    def decoder(self) -> Decoder:
        """From the labelled sentences."""
        known = self.sentences["train"]
        return Decoder([one.states for one in known], [one.segments for one in known])

    def phone_error(self, net: Teacher, logits: Array) -> float:
        """Of a net with these logits for the test rows, its scales chosen on the development sentences."""
        said = self._by_sentence("development", self.logits(net, self.data.validation))
        scales = self.decoder.chosen(said, [one.phones for one in self.sentences["development"]])
        heard = self.decoder.decoded(self._by_sentence("test", logits), scales)
        return phone_error_rate(heard, [one.phones for one in self.sentences["test"]])

    def _by_sentence(self, part: str, logits: Array) -> list[Array]:
        return np.split(logits, np.cumsum([len(one.states) for one in self.sentences[part]])[:-1])


class Timit(Experiment):
    """Nets of 1845 inputs, 15 frames of 123 features, and 183 outputs; all training sentences are labelled."""

    name = group = "timit"
    title, seeds, needs_files = "TIMIT", 3, True
    in_all = False
    more = (PHONE_ERROR,)
    notes: tuple[str, ...] = (PAPERS_FIGURES, "The teacher is the ensemble of CNNs (ECNN).")
    every = (1, 1)
    is_synthetic = False

    def demand(self) -> None:
        for module in ("librosa", "soundfile", "rapidfuzz", "scipy"):
            package("speech", module)
        if self.path is not None or self.needs_files:
            self.corpus  # noqa: B018 - whatever is missing is missed here

    @cached_property
    def corpus(self) -> Corpus:
        """The copy that is at `path`."""
        if self.path is None:
            raise ValueError("path: expected the folder with TIMIT's folders TRAIN and TEST, got none")
        corpus = open_corpus(self.path)
        if corpus.synthetic != self.is_synthetic:
            kinds = {True: "a synthetic corpus, which is timit-synthetic's", False: "TIMIT, which is timit's"}
            raise ValueError(f"path: {str(self.path)!r}: expected {kinds[self.is_synthetic]}, got {kinds[corpus.synthetic]}")
        return corpus

    def recipe(self) -> Recipe:
        return Recipe(*_NARROW[:2], self.kept(replace(_CNN, nets=2) if self.fast else _CNN))

    def runs(self) -> Sequence[Run]:
        labels, answers = named("labels"), named("answers")
        return [
            self.net("table", "DNN", [_DNN]),
            self.net("table", "CNN", [_CNN]),
            self.student("table", "SNN-8k on labels", labels, _LABELS, shape=self._shape(_NARROW)),
            self.student("table", "SNN-50k on labels", labels, [_WIDE_LABELS], shape=self._shape(_WIDE)),
            self.student("table", "SNN-MIMIC-8k", answers, [_MIMIC], shape=self._shape(_NARROW)),
            self.student("table", "SNN-MIMIC-8k, squared error", answers, [_SQUARED], shape=self._shape(_NARROW)),
            self.student("table", "SNN-MIMIC-50k", answers, [_WIDE_MIMIC], shape=self._shape(_WIDE)),
        ]

    def split(self, seed: int) -> dict[str, list[Utterance]]:
        """The sentences of each part, "unlabelled" among them."""
        return {part: list(self.corpus.parts.get(part, ())) for part in _PARTS}

    def setting(self, seed: int) -> Setting:
        seeds = Seeds.of(seed)
        chosen = self.split(seeds.split)
        sentences = {part: self._read(chosen[part][:_FEW] if self.fast else chosen[part]) for part in _PARTS}
        return SentenceSetting(sentences, self.every, self.recipe(), seeds, self.device)

    def measured(self, setting: Setting, net: Teacher, logits: Array) -> dict[str, float]:
        assert isinstance(setting, SentenceSetting)
        return {PHONE_ERROR: setting.phone_error(net, logits)}

    def _shape(self, shape: Shape) -> Shape:
        return shape._replace(hidden=shape.hidden // 50) if self.fast else shape

    def _read(self, sentences: Sequence[Utterance]) -> list[Recording]:
        """What was read once is kept, as all seeds read the same."""
        new = [one for one in sentences if one not in self._known]
        self._known.update(zip(new, read(new)))
        return [self._known[one] for one in sentences]

    @cached_property
    def _known(self) -> dict[Utterance, Recording]:
        return {}


class SyntheticTimit(Timit):
    """The same nets on speech by flite: few sentences are labelled, and the teacher labels the others."""

    name = group = "timit-synthetic"
    title, needs_files, takes_files = "Synthetic speech by flite in TIMIT's layout, which is not TIMIT", False, True
    notes = (
        *Timit.notes,
        "Those are of human speech. Here flite speaks, with other speakers, noise and phones: only the order can be compared.",
    )
    every = (2, 1)
    is_synthetic = True
    labelled = 16  # speakers

    def demand(self) -> None:
        if self.path is None:
            synthetic.demand_programs()
        super().demand()

    @cached_property
    def corpus(self) -> Corpus:
        """The one at `path`, or one that is made beside the nets."""
        if self.path is not None:
            return super().corpus
        folder = self.folder / "cases" / self.stem
        try:
            return open_corpus(folder)
        except FileNotFoundError:
            return open_corpus(synthetic.make(folder, speakers=_FEW_SPEAKERS if self.fast else _SPEAKERS))

    def split(self, seed: int) -> dict[str, list[Utterance]]:
        """Other speakers are labelled for each seed."""
        parts = super().split(seed)
        names = np.random.default_rng(seed).permutation(sorted({one.speaker for one in parts["train"]}))
        labelled = set(names[: 2 if self.fast else self.labelled])
        parts["unlabelled"] = [one for one in parts["train"] if one.speaker not in labelled]
        parts["train"] = [one for one in parts["train"] if one.speaker in labelled]
        return parts
