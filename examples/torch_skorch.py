"""A wide net in scikit-learn's grid search, by skorch: which rank and width?

skorch makes an estimator of any module of torch. `MimicNet` is one: its arguments are the grid.
"""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier

from pymimic.torch import MimicNet

pixels, labels = load_digits(return_X_y=True)
x = (pixels / 16 - 0.3).astype(np.float32)

net = NeuralNetClassifier(
    MimicNet, module__inputs=64, module__hidden=256, module__outputs=10, module__dropout=0.25, criterion=torch.nn.CrossEntropyLoss,
    optimizer=torch.optim.AdamW, lr=5e-3, max_epochs=5, batch_size=128, train_split=None, verbose=0,
)  # fmt: skip
search = GridSearchCV(net, {"module__rank": [4, 32], "module__hidden": [64, 256]}, cv=2, scoring="accuracy")
search.fit(x[:1400], labels[:1400])
for setting, score in zip(search.cv_results_["params"], search.cv_results_["mean_test_score"]):
    print(f"rank {setting['module__rank']:2}, hidden {setting['module__hidden']:3}: accuracy {score:.4f}")
print(f"test accuracy: {search.score(x[1400:], labels[1400:]):.4f}")
