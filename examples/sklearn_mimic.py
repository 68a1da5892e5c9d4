"""A mimic among scikit-learn's estimators: a forest teaches a wide shallow net, in a pipeline and a grid search.

The forest is not fitted: `fit` fits it, and takes its answers for the labelled rows out of fold. The net alone goes into a file.
"""

import os
import tempfile

import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import ExtraTreesClassifier
from sklearn.model_selection import GridSearchCV, train_test_split

import pymimic as pm
from pymimic.sklearn import MimicClassifier

x, y = load_digits(return_X_y=True)
x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0, stratify=y)

forest = ExtraTreesClassifier(100, random_state=0)
mimic = MimicClassifier(forest, hidden=256, epochs=12, copies=2, folds=3, random_state=0)
search = GridSearchCV(mimic, {"temperature": [1.0, 2.0]}, cv=2).fit(x_train, y_train)
best = search.best_estimator_

print(f"temperature: {search.best_params_['temperature']}")
print(f"teacher accuracy: {best.teacher_.score(x_test, y_test):.4f}")
print(f"mimic accuracy: {best.score(x_test, y_test):.4f}")
print(f"agreement: {best.teacher_agreement_:.4f}")
teacher, student = best.compression_["teacher"], best.compression_["student"]
print(f"bytes, teacher to student: {teacher['bytes'] / student['bytes']:.1f}")

with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "digits.safetensors")
    best.student_.save(path)
    columns = pm.Student.load(path).predict(x_test.astype(np.float32)).argmax(axis=1)
print(f"the file answers alike: {np.array_equal(best.classes_[columns], best.predict(x_test))}")
