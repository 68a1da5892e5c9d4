"""Small rows, quick settings and a teacher for the tests of pymimic.sklearn."""

from sklearn.datasets import load_diabetes, load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

TINY = {"hidden": 16, "epochs": 12, "batch_size": 32, "learning_rate": 0.05, "ema": None}
QUICK = TINY | {"copies": 1, "folds": 2, "random_state": 0}
IRIS, KIND = load_iris(return_X_y=True)
BODY, GROWTH = (part[:200] for part in load_diabetes(return_X_y=True))


def logistic():
    return LogisticRegression(max_iter=500)


class Noted(KNeighborsClassifier):
    """Remembers which rows each fit saw, and which it was asked about."""

    log: list = []  # noqa: RUF012

    def fit(self, X, y):
        self.saw_ = {row.tobytes() for row in X}
        return super().fit(X, y)

    def predict_proba(self, X):
        Noted.log.append((self.saw_, {row.tobytes() for row in X}))
        return super().predict_proba(X)
