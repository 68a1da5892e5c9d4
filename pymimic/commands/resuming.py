"""What `pymimic distill` says of checkpoints: settings of a run by the options that make them."""

from __future__ import annotations

import os
from pathlib import Path

from ..exits import option
from ..files import read_metadata
from ..training.resume import OtherRunError, changeable, flat, in_words
from ..training.trainer import Trainer

# Options that --resume-with takes; and those that make a setting of another name
_MAY_DIFFER = ("batch-size", "dropout", "dtype", "ema", "inputs", "loss", "lr", "seed", "temperature", "val-inputs", "weight-decay")
_OPTIONS = {
    "learning_rate": "lr", "rows": "inputs", "data": "inputs", "validation": "val-inputs",
    "slots": "optimizer", "momentum": "optimizer", "nesterov": "optimizer", "student.inputs": "inputs", "student.outputs": "logits",
}  # fmt: skip


def demand_clear_start(checkpoint: Path, resume: bool, resume_with: str, fresh: bool) -> None:
    """Overwrite no checkpoint that nobody said to overwrite, and no other file at all."""
    if resume and fresh:
        raise ValueError("fresh: expected it or --resume, got both")
    if resume_with and not resume:
        raise ValueError("resume-with: expected --resume beside it, got it alone")
    if not os.path.exists(checkpoint):
        if resume:
            ended = "a run that comes to its end removes its own"
            raise ValueError(f"resume: expected the checkpoint of a run that was stopped in {str(checkpoint)!r}, got no file; {ended}")
        return
    with option("checkpoint", path="checkpoint"):
        read_metadata(checkpoint, "checkpoint")
    if not (resume or fresh):
        raise ValueError(
            f"checkpoint: expected no file, got the state of an earlier run in {str(checkpoint)!r}: to go on from it, add --resume; "
            "to start anew, --fresh"
        )


def _option(setting: str) -> str:
    """The option that makes a setting of a run."""
    return _OPTIONS.get(setting, setting.removeprefix("student.").replace("_", "-"))


def settings_of(trainer: Trainer, options: str) -> list[str]:
    """The settings that options make, of those that may differ; `options` are names with commas between them."""
    asked = {name.strip().removeprefix("--") for name in options.split(",") if name.strip()}
    if not asked <= set(_MAY_DIFFER):
        raise ValueError(f"resume-with: expected names among {', '.join(_MAY_DIFFER)}, got {', '.join(sorted(asked - set(_MAY_DIFFER)))}")
    settings = [*flat(trainer.configuration()), "data", *(["validation"] if trainer.keep_best else [])]
    return [setting for setting in changeable(settings) if _option(setting) in asked]


def other_run(error: OtherRunError) -> str:
    """The message, with options in place of settings."""
    found: dict[str, tuple[str, str]] = {}
    for setting, theirs, ours in error.found:
        found.setdefault(_option(setting), (theirs, ours))
    words = in_words((f"--{name}", *values) for name, values in found.items())
    rates = " (--lr, --schedule, --warm-up, --epochs and --batch-size make the rates)" if "lr" in found else ""
    go_on = f"to go on with this run's all the same, add --resume-with {','.join(found)}; " if error.may_differ else ""
    return f"resume: expected the options of the run that was stopped: {words}{rates}; {go_on}to start anew, say --fresh, not --resume"
