"""`pymimic compress`: a saved student made smaller, and what it loses by that."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console

from ..data.cases import in_order
from ..data.parts import Part, held_out
from ..data.transfer import TransferSet
from ..errors import TrainingDivergedError
from ..exits import counted, option, say
from ..files import demand_kind_or_none
from ..nets.student import Student
from ..tables import print_table
from ..targets import demand_distinct, demand_writable
from ..training.compress import compress as smaller
from .options import demand_loss, use_threads

_HELD_OUT = 0.1  # of the transfer set's rows
_COLUMNS = ("", "parameters", "bytes", "multiply-adds")


def compress(
    student: Annotated[Path, typer.Argument(metavar="S.safetensors", help="a saved student")],
    out: Annotated[Path, typer.Option(metavar="T.safetensors", help="where to save the smaller one")],
    bits: Annotated[int | None, typer.Option(metavar="8|4", help="of each weight in the file  [default: float32]")] = None,
    prune: Annotated[float, typer.Option(metavar="SHARE", help="of the hidden units to remove, in [0, 1)")] = 0.0,
    rank: Annotated[int | None, typer.Option(metavar="k", help="units of a narrower bottleneck, or of one where there is none")] = None,
    transfer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="folder of a transfer set, to fit to, train and measure on  [default: none]")
    ] = None,
    epochs: Annotated[int, typer.Option(metavar="N", help="of training after --prune and --rank; 0 for none")] = 10,
    batch_size: Annotated[int, typer.Option(metavar="B", help="rows of a step")] = 512,
    lr: Annotated[float, typer.Option(metavar="RATE", help="learning rate, from which a cosine falls to 0")] = 1e-3,
    loss: Annotated[str, typer.Option(metavar="mimic|distillation", help="squared error of logits, or cross-entropy (KL)")] = "mimic",
    temperature: Annotated[float, typer.Option(metavar="T", help="of distillation alone, at most 100")] = 1.0,
    seed: Annotated[int, typer.Option(metavar="N", help="of the rows that are held out, and of the training; at least 0")] = 0,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="where to train")] = "cpu",
    threads: Annotated[int | None, typer.Option(metavar="N", help="of the kernels  [default: the cores at hand]")] = None,
) -> None:
    """Make a student smaller: fewer hidden units, a narrower bottleneck, weights of 8 or 4 bits; or several of these, in that order.

    With a transfer set a tenth of its rows is held out, and what is lost is measured on them: agreement is the share of rows with the
    teacher's class (not said of one output, which is always the largest), loss half the squared error of a row's logits. Without one
    only the weights say what matters, and nothing is trained.
    """
    use_threads(threads)
    demand_distinct({"student": student}, {"out": out})
    demand_writable("out", out)
    demand_kind_or_none("out", out, "student")
    demand_loss(loss)
    with option("student", path="student"):
        net = Student.load(student)
    rest = held = None
    if transfer is not None:
        with option("transfer", directory="transfer"):
            cases = TransferSet.open(transfer)
        if len(cases) < 2:
            raise ValueError(f"transfer: expected at least 2 rows, as some are held out, got {len(cases)}")
        rest, held = held_out(cases, _HELD_OUT, seed)
    try:
        with option("transfer", learning_rate="lr"):
            made = smaller(
                net, bits=bits, prune=prune, rank=rank, transfer=rest, epochs=epochs, learning_rate=lr, batch_size=batch_size, loss=loss,
                temperature=temperature, seed=seed, device=device,
            )  # fmt: skip
    except TrainingDivergedError as error:
        raise TrainingDivergedError(str(error).replace("learning rate", "--lr")) from None
    lines = [_line("before", net, held), _line("after", made, held)]
    with option("out"):
        made.save(out)
    measured = () if held is None else ("loss",) if held.outputs == 1 else ("agreement %", "loss")
    print_table(Console(), (*_COLUMNS, *measured), lines)
    if rest is None or held is None:
        say("without --transfer nothing was fitted, trained or measured")
    else:
        others = f"the other {len(rest)} were there to fit and train on"
        say(f"{'loss' if held.outputs == 1 else 'agreement and loss'}: on {counted(len(held), 'row')} held out by seed {seed}; {others}")
    say(f"{out}: {made.parameter_count} parameters in {made.stored_nbytes} bytes")


def _line(name: str, net: Student, held: Part | None) -> list[str]:
    """A line of the table."""
    sizes = [f"{size:,}" for size in (net.parameter_count, net.stored_nbytes, net.multiply_adds)]
    if held is None:
        return [name, *sizes]
    agreed, error = 0, 0.0
    for x, logits, _ in in_order("transfer", held):
        y = net.predict(x)
        assert isinstance(logits, np.ndarray)  # no labels are in files
        agreed += int(np.count_nonzero(y.argmax(axis=1) == logits.argmax(axis=1)))
        error += float(np.square(y - logits, dtype=np.float64).sum())
    agreement = [] if held.outputs == 1 else [f"{100 * agreed / len(held):.2f}"]
    return [name, *sizes, *agreement, f"{error / 2 / len(held):.4g}"]
