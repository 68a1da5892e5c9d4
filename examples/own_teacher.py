"""A teacher of your own: any object with `logits(x)` and `describe()`. Here it averages two scikit-learn classifiers.

The teacher labels the training rows out of fold (a teacher has overfitted the rows it was fitted on) and munged copies of them.
The student then learns the logits by regression.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import train_test_split
from sklearn.svm import SVC

import pymimic as pm


class ForestAndVectors:
    """The log-probabilities of a forest plus the margins of support vectors, halved."""

    def __init__(self, x, labels):
        self.forest = ExtraTreesClassifier(100, random_state=0).fit(x, labels)
        self.vectors = SVC(C=10, gamma=0.5).fit(x, labels)

    def logits(self, x):
        """(B, D) float32 rows in, (B, C) float32 logits out, of mean 0 in each row: no softmax sees that mean."""
        log_p = np.log(self.forest.predict_proba(x) + 0.01)  # probability 0 only means "very little"
        both = (log_p + self.vectors.decision_function(x)) / 2
        return (both - both.mean(axis=1, keepdims=True)).astype(np.float32)

    def describe(self):
        """What a transfer set's manifest keeps: enough to tell this teacher from another."""
        return {"kind": "forest and support vectors", "trees": 100, "C": 10, "gamma": 0.5, "floor": 0.01}


pixels, labels = load_digits(return_X_y=True)
x_train, x_test, labels_train, labels_test = train_test_split((pixels / 16).astype(np.float32), labels, random_state=0)

teacher = ForestAndVectors(x_train, labels_train)
own = pm.out_of_fold(ForestAndVectors, x_train, labels_train, folds=2)
new = np.concatenate(list(pm.munge(x_train, copies=5, p=0.2, s=5.0, seed=0)))
cases = pm.TransferSet(np.concatenate([x_train, new]), np.concatenate([own, teacher.logits(new)]))

student = pm.Student(inputs=64, hidden=512, outputs=10, rank=32)
student.initialise_bottleneck(x_train)
steps = 10 * -(-len(cases) // 256)
pm.Trainer(student, pm.AdamW(pm.cosine(3e-3, steps)), epochs=10, batch_size=256).fit(cases)

taught, learned = (net(x_test).argmax(axis=1) for net in (teacher.logits, student.predict))
print(f"teacher accuracy: {np.mean(taught == labels_test):.4f}")
print(f"student accuracy: {np.mean(learned == labels_test):.4f}")
print(f"agreement: {np.mean(learned == taught):.4f}")
