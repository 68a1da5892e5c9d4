"""How many times as fast as its teacher a student is: the part that magika_student.py and torchcrepe_student.py share."""

import time

import numpy as np

import pymimic as pm


def microseconds(function, argument, seconds=1.0):
    """Of processor time per row, in the fastest of as many calls as the seconds allow: other work on the machine disturbs that least."""
    took, end = [], time.perf_counter() + seconds
    while len(took) < 2 or time.perf_counter() < end:
        start = time.process_time()
        function(argument)
        took.append(time.process_time() - start)
    return 1e6 * min(took) / len(argument)


def race(student, features, taught, rows, batch):
    """Print microseconds of processor time a row, of teacher and student, for one row and for a batch."""
    for part, predict in ((rows[:1], pm.Predictor(student).predict), (np.resize(rows, (batch, rows.shape[1])), student.predict)):
        slow, fast = microseconds(taught.logits, part), microseconds(lambda part, predict=predict: predict(features(part)), part)
        print(f"batch {len(part)}: teacher {slow:.0f} us a row, student {fast:.0f} us, {slow / fast:.0f} times faster;", end="")
        print(f" features {microseconds(features, part):.0f} us, net {microseconds(predict, features(part)):.0f} us")
