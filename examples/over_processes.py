"""One wide student over several processes: each has some of the hidden units.

torchrun --nproc-per-node 2 examples/over_processes.py

`python examples/over_processes.py` trains the same student in one process, to the same bits.
"""

import hashlib
import tempfile
from pathlib import Path

import numpy as np

import pymimic as pm
from pymimic import distributed

group = distributed.joined()
rng = np.random.default_rng(0)
x = rng.standard_normal((6000, 20), np.float32)
mix = rng.standard_normal((20, 8)).astype(np.float32)
teacher = pm.from_callable(lambda rows: np.abs(rows @ mix)[:, :4] - np.abs(rows @ mix)[:, 4:])
cases = pm.TransferSet(x[:5000], teacher.logits(x[:5000]))

student = distributed.ShardedStudent(inputs=20, hidden=2048, outputs=4, rank=12, group=group, reproducible=True)
pm.Trainer(student, pm.AdamW(pm.cosine(5e-3, 400)), epochs=10, batch_size=128).fit(cases)

agreement = student.score(x[5000:], teacher.logits(x[5000:]).argmax(axis=1))  # by all processes together
whole = student.whole()  # where one process has room for all units; student.save() needs none
if group.rank == 0:
    with tempfile.TemporaryDirectory() as folder:
        whole.save(Path(folder) / "student.safetensors")
        size = (Path(folder) / "student.safetensors").stat().st_size
    print(f"{group.size} processes, {len(student.units)} units in the first one, {size} bytes in all")
    print(f"weights: {hashlib.sha256(whole.arrays()['U'].tobytes()).hexdigest()[:16]}")
    print(f"same class as the teacher's: {agreement:.3f}")
