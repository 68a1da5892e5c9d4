"""Spoken digits (FSDD): deep teachers and shallow nets on frames of speech, by the publisher's split, and on speakers never heard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..backends.interface import Array
from ..data.cases import Cases
from ..data.teacher import Teacher
from ..demo.recipes import Recipe
from ..demo.setting import Seeds, Setting, Shape
from ..demo.students import Training
from ..packages import package
from ..speech.fsdd import SPEAKERS
from ..training.convolution import Convolution
from .cases import named
from .digits import DigitSetting, Split, recordings_at, spoken
from .experiment import Experiment, Run
from .frames import FrameConvRecipe, FrameDeepRecipe

DIGIT_ERROR = "digit error"
_TAUGHT, _MORE = 3, 6  # copies of each recording that the teacher learns from, and that it only labels
_EVERY = (2, 3)  # of the frames of recordings, and of copies, one in so many is a row: neighbours are much alike
_SHAPE, _ALIGNER = Shape(8_000, 250), Shape(1_024, 128)
_CNN = FrameConvRecipe(
    epochs=6, nets=3, batch_size=128, learning_rate=1.5e-3, weight_decay=0.01, beta2=0.99, ema=0.99, dropout=0.3,
    convolutions=(Convolution(64, (8, 15), (2, 1)),), hidden=(512, 512),  # along the filters, all frames at once
)  # fmt: skip
_DNN = FrameDeepRecipe(
    epochs=6, batch_size=128, learning_rate=1e-3, weight_decay=0.01, beta2=0.99, ema=0.99, dropout=0.3, hidden=(768, 768, 768)
)
_FEW_CNN = replace(_CNN, nets=2, convolutions=(Convolution(4, (8, 15), (4, 1)),), hidden=(16,))
_FEW_DNN = replace(_DNN, hidden=(16,))
_LABELS = Training("cross_entropy", 1e-3, 4, 128, weight_decay=0.01, dropout=0.3)
_MIMIC = Training("mimic", 2e-3, 4, 128)
_T3 = replace(_MIMIC, loss="distillation", temperature=3.0)
_CLEAN_EPOCHS = 7 * _LABELS.epochs  # of recordings alone: as many steps, as recordings are a seventh of the rows


class Speech(Experiment):
    """Students 1845-250-8,000-30. Frames are right where the state is; digits by summed log posteriors, left to right."""

    name = group = "speech"
    title, seeds, needs_files = "Spoken digits (FSDD), the publisher's split", 3, True
    in_all = False
    more = (DIGIT_ERROR,)
    held_out: str | None = None  # a speaker
    notes = (
        "Accuracy is of frames. A net of 1,024 units aligned their states, which is neither teacher nor student.",
        "Digit error is of recordings, by summed log posteriors.",
    )

    @property
    def source(self) -> str:
        return "fsdd"

    def demand(self) -> None:
        for module in ("librosa", "soundfile"):
            package("speech", module)
        if self.path is None:
            raise ValueError("path: expected the folder with FSDD's recordings, got none")
        recordings_at(self.path, self.fast)

    def recipe(self) -> Recipe:
        return Recipe(*_SHAPE[:2], self.kept(_FEW_CNN if self.fast else _CNN))

    def runs(self) -> Sequence[Run]:
        labels, answers, shape = named("true labels"), named("answers"), self._shape(_SHAPE)
        students = [
            self.student("table", "labels, augmented", labels, [_LABELS], shape=shape),
            self.student("table", "T = 3", answers, [_T3], shape=shape),
        ]
        if self.held_out is not None:
            return students
        plain = self.student("table", "labels", _recorded, [replace(_LABELS, epochs=_CLEAN_EPOCHS)], shape=shape)
        cnn, dnn = (_FEW_CNN, _FEW_DNN) if self.fast else (_CNN, _DNN)
        squared = self.student("table", "mimic", answers, [_MIMIC], shape=shape)
        longer = self.student("table", "T = 3, twice as long", answers, [replace(_T3, epochs=2 * _T3.epochs)], shape=shape)
        alone = [self.net("teachers", "one convolutional net", [cnn]), self.net("teachers", "one deep net", [dnn])]
        return [plain, *students, longer, squared, *alone]

    def setting(self, seed: int) -> Setting:
        seeds = Seeds.of(seed)
        assert self.path is not None
        taught, more = (1, 1) if self.fast else (_TAUGHT, _MORE)
        known = spoken(self.path, taught + more, seeds.cases, self.fast)
        every = (2, 4) if self.fast else _EVERY
        split = Split.of(known.recordings, self.held_out)
        return DigitSetting(known, split, every, taught, self._shape(_ALIGNER), self.recipe(), seeds, self.device)

    def measured(self, setting: Setting, net: Teacher, logits: Array) -> dict[str, float]:
        assert isinstance(setting, DigitSetting)
        return {DIGIT_ERROR: setting.digit_error(logits)}

    def _shape(self, shape: Shape) -> Shape:
        return Shape(shape.hidden // 50, 16, whitened=False) if self.fast else shape


def _recorded(setting: Setting) -> Cases:
    assert isinstance(setting, DigitSetting)
    return setting.data.cases(setting.recorded)


def _without(speaker: str) -> type[Speech]:
    """The experiment in which that speaker is heard in the test rows alone."""
    parts = {
        "name": f"speech-{speaker}",
        "title": f"Spoken digits (FSDD), {speaker} never heard",
        "held_out": speaker,
        "__doc__": Speech.__doc__,
    }
    return type(f"SpeechWithout{speaker.capitalize()}", (Speech,), parts)


LEFT_OUT = tuple(_without(speaker) for speaker in SPEAKERS)
