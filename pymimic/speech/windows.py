"""Frames in their context, as cases: kept once each, and put beside their neighbours when a batch asks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..data.cases import class_labels, demand_values, row_numbers
from ..data.moments import moments
from ..data.teacher import Teacher, label

CONTEXT = 15
"""Frames that a net sees at once, the middle one being the one that it is asked for."""

_ROWS = 4096  # windows made at once


class Frames:
    """The frames of many utterances, one after the other, and each with its context on demand: memory is of N x F, not N x F x 15.

    Parameters
    ----------
    utterances : (T, F) float32 arrays of at least one frame, with the same F
    context : an odd number of frames that a window has; at the edges the first or last frame of the utterance is repeated

    Attributes
    ----------
    values : (N, F) float32
    starts : (U + 1,) int64, where each utterance begins, and N
    inputs : F * context, what a window has: column by column of the features, each with its frames side by side, earliest first, as a
        `pymimic.ConvNet` of input (F, context) takes them, and one of (3, F / 3, context) where columns are values and two differences

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong kind or shape, or NaN or infinity.
    """

    def __init__(self, utterances: Sequence[Array], context: int = CONTEXT) -> None:
        self.context = _check.integer("context", context, 1, 1 << 16)
        if context % 2 == 0:
            raise ValueError(f"context: expected an odd number of frames, got {context}")
        given = _check.sequence("utterances", utterances, "arrays of frames")
        if not given:
            raise ValueError("utterances: expected at least one, got none")
        dims = _check.Dims()
        arrays = [_check.data_array(f"utterances[{i}]", one) for i, one in enumerate(given)]
        for i, one in enumerate(arrays):
            _check.float_dtype(f"utterances[{i}]", one)
            dims.shape(f"utterances[{i}]", one.shape, (f"T{i}", "F"))
            if len(one) == 0:
                raise ValueError(f"utterances[{i}]: expected at least one frame, got none")
        self.values = np.concatenate([np.asarray(one, np.float32) for one in arrays])
        demand_values("utterances", self.values)
        self.starts = np.concatenate([[0], np.cumsum([len(one) for one in arrays])])
        self._of = np.repeat(np.arange(len(arrays)), np.diff(self.starts))
        self._offsets = np.arange(context) - context // 2
        self.inputs = self.context * int(self.values.shape[1])

    def __len__(self) -> int:
        """N."""
        return len(self.values)

    def rows_of(self, utterances: Array) -> Array:
        """The numbers of the frames of the utterances of these numbers, in order."""
        numbers = row_numbers(utterances, len(self.starts) - 1, "utterances")
        return np.concatenate([np.zeros(0, np.int64), *(np.arange(self.starts[i], self.starts[i + 1]) for i in numbers)])

    def windows(self, rows: Array) -> Array:
        """(n, F * context) float32: the frames of these numbers, each amid its neighbours."""
        numbers = row_numbers(rows, len(self), "rows")
        of = self._of[numbers]
        at = np.clip(numbers[:, None] + self._offsets, self.starts[of, None], self.starts[of + 1, None] - 1)
        return np.ascontiguousarray(self.values[at].transpose(0, 2, 1)).reshape(len(numbers), self.inputs)

    def standards(self, rows: Array | None = None) -> tuple[Array, Array]:
        """Mean and 1 / deviation (F * context,) float32 of the frames of these numbers, or of all, the same for each place of a window.

        For `Net.set_standardisation`: a pass over frames, where `standardise_inputs` makes all windows.
        """
        numbers = self._numbers(rows)
        if len(numbers) == 0:
            raise ValueError("rows: expected at least one, got none")
        mean, deviation = moments(self.values[numbers[start : start + _ROWS]] for start in range(0, len(numbers), _ROWS))
        return np.repeat(mean, self.context).astype(np.float32), np.repeat(1 / deviation, self.context).astype(np.float32)

    def answers(self, net: Teacher, rows: Array | None = None) -> Array:
        """A net's logits (n, C) float32 for the windows of the frames of these numbers, or of all, some thousand at a time."""
        numbers = self._numbers(rows)
        starts = range(0, max(1, len(numbers)), _ROWS)
        return np.concatenate([label(net, self.windows(numbers[start : start + _ROWS]), first_row=start) for start in starts])

    def _numbers(self, rows: Array | None) -> Array:
        return np.arange(len(self)) if rows is None else row_numbers(rows, len(self), "rows")


class FrameCases:
    """`pymimic.Cases` of frames in their context, with labels or with a teacher's logits.

    Parameters
    ----------
    frames : whose windows are the inputs
    targets : (N,) integers in [0, outputs), or (N, C) floats: a target for each frame
    outputs : C, for labels
    rows : (n,) ints, the frames that are cases, for some of them; None for all

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong kind, shape or range; NaN or infinity in the targets.
    """

    def __init__(self, frames: Frames, targets: Array, outputs: int | None = None, rows: Array | None = None) -> None:
        self.frames, dims = frames, _check.Dims(None, N=len(frames))
        self.rows: Array = np.arange(len(frames)) if rows is None else row_numbers(rows, len(frames), "rows")
        self.targets = _check.data_array("targets", targets, floats=False)
        if self.targets.dtype.kind in "iu":
            if outputs is None:
                raise ValueError("outputs: expected the number of classes beside labels, got None")
            self.outputs = _check.integer("outputs", outputs, 1, 1 << 31)
            self.targets = class_labels(dims, self.targets, self.outputs)
        else:
            _check.float_dtype("targets", self.targets)
            dims.shape("targets", self.targets.shape, ("N", "C"))
            demand_values("targets", self.targets)
            self.outputs = int(self.targets.shape[1])
            if outputs is not None and outputs != self.outputs:
                raise ValueError(f"outputs: expected {self.outputs}, as the logits have columns, or None, got {outputs}")

    @property
    def inputs(self) -> int:
        """D: F * context."""
        return self.frames.inputs

    def __len__(self) -> int:
        return int(self.rows.size)

    def batch(self, indices: Array) -> tuple[Array, Array, None]:
        """Windows (n, D) float32, and logits (n, C) float32 or labels (n,) int64."""
        numbers = self.rows[indices]
        targets = self.targets[numbers]
        return self.frames.windows(numbers), targets if targets.dtype.kind == "i" else np.asarray(targets, np.float32), None
