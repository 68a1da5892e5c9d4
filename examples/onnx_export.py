"""An ONNX model teaches a student, and the student leaves as an ONNX model, in float32 and in int8.

The teacher is written by pymimic here, to have one; any ONNX model with one input of floats and an output of logits does.
"""

import os
import tempfile

import numpy as np
import onnxruntime
from sklearn.datasets import load_digits

import pymimic as pm
from pymimic.onnx import export, teacher

os.chdir(tempfile.mkdtemp())
pixels, labels = load_digits(return_X_y=True)
x = (pixels / 16).astype(np.float32)
order = np.random.default_rng(0).permutation(len(x))
train, test = order[:1400], order[1400:]

net = pm.DeepNet([64, 128, 128, 10], dropout=0.3)
net.fit(x[train], labels[train], epochs=20, standardise="all", progress=False)
export(net, "teacher.onnx")

taught = teacher("teacher.onnx")
print(f"teacher accuracy {np.mean(taught.logits(x[test]).argmax(1) == labels[test]):.3f}")
inputs = pm.munge(x[train], copies=5, p=0.3, s=1.0, seed=0)
cases = pm.TransferSet.from_teacher(taught, inputs)

student = pm.Student(inputs=64, hidden=512, outputs=10, rank=32)
steps = 20 * -(-len(cases) // 128)
pm.Trainer(student, pm.AdamW(pm.cosine(5e-3, steps)), epochs=20, batch_size=128, standardise_inputs=True, progress=False).fit(cases)
print(f"student accuracy {student.score(x[test], labels[test]):.3f}")

wanted = student.predict(x[test])
for precision in ("float32", "int8"):
    export(student, "student.onnx", precision)
    (y,) = onnxruntime.InferenceSession("student.onnx").run(["y"], {"x": x[test]})
    error = np.abs(y - wanted).max() / np.abs(wanted).max()
    print(f"{precision}: accuracy {np.mean(y.argmax(1) == labels[test]):.3f}, largest error {error:.1e} of the largest logit")
