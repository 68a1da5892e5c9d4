"""A transfer set that need not fit into memory: labelled shard by shard into a folder, then read from there.

`munge` yields one copy of the data at a time, `TransferSet.create` holds one shard, and training reads the rows of a batch from
memory-mapped files. A labelling run that was stopped goes on behind its last whole shard when it is called again.
"""

import tempfile
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import pymimic as pm

pixels, labels = load_digits(return_X_y=True)
x = (pixels / 16).astype(np.float32)
teacher = pm.DeepNet([64, 64, 10], dropout=0.2).fit(x, labels, epochs=10, batch_size=64, standardise="all")

with tempfile.TemporaryDirectory() as folder:
    labelling = {"rows_per_shard": 2048, "source": "digits, munged"}
    cases = pm.TransferSet.create(folder, teacher, pm.munge(x, copies=8, p=0.2, s=5.0, seed=0), **labelling)
    files = sorted(Path(folder).glob("*.npy"))
    print(f"{len(cases)} rows in {len(files) // 2} shards, {sum(file.stat().st_size for file in files)} bytes")

    # The same call again finds all shards there; it compares the inputs with those on disk, and labels nothing.
    before = [file.stat().st_mtime_ns for file in files]
    pm.TransferSet.create(folder, teacher, pm.munge(x, copies=8, p=0.2, s=5.0, seed=0), **labelling)
    print("labelled again:", [file.stat().st_mtime_ns for file in files] != before)

    cases = pm.TransferSet.open(folder)  # compares each file with its sha256
    student = pm.Student(inputs=64, hidden=512, outputs=10, rank=32)
    history = pm.Trainer(student, pm.AdamW(2e-3), epochs=4, batch_size=256, standardise_inputs=True).fit(cases)

for record in history:
    print(f"epoch {record.epoch}: loss {record.train_loss:.4f}")
agreement = np.mean(student.predict(x).argmax(axis=1) == teacher.logits(x).argmax(axis=1))
print(f"agreement: {agreement:.4f}")
