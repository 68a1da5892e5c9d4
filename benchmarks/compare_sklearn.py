"""A forest, its mimic, the same net on labels, and scikit-learn's perceptron of that size, on two bundled sets.

    python benchmarks/compare_sklearn.py [--seeds 5]

Prints the table of docs/howto/sklearn.md: accuracy or R^2 on test rows, a quarter of all, mean and standard deviation over seeds. The seed
splits the rows and starts every model. All settings but the size are defaults; the perceptron sees standardised inputs, and stops early.
"""

import argparse
import time
import warnings

import numpy as np
from sklearn.base import is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.datasets import load_diabetes, load_digits
from sklearn.ensemble import ExtraTreesClassifier, RandomForestRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pymimic.sklearn import MimicClassifier, MimicRegressor

HIDDEN = 256


def models(teacher, seed):
    """Each model of the table by its name, not fitted."""
    mimic, perceptron = (MimicClassifier, MLPClassifier) if is_classifier(teacher) else (MimicRegressor, MLPRegressor)
    plain = perceptron(hidden_layer_sizes=[HIDDEN], early_stopping=True, n_iter_no_change=20, max_iter=500, random_state=seed)
    if not is_classifier(teacher):
        plain = TransformedTargetRegressor(plain, transformer=StandardScaler())
    return {
        f"{type(teacher).__name__}, the teacher": teacher.set_params(random_state=seed),
        f"{mimic.__name__} of it": mimic(teacher, hidden=HIDDEN, random_state=seed),
        f"{mimic.__name__} without teacher": mimic(hidden=HIDDEN, random_state=seed),
        f"{perceptron.__name__}": make_pipeline(StandardScaler(), plain),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    seeds = parser.parse_args().seeds
    warnings.simplefilter("ignore", ConvergenceWarning)
    print("| set | model | score | ± | seconds to fit |\n|---|---|---|---|---|")
    for name, load, forest in (
        ("digits", load_digits, ExtraTreesClassifier(100)),
        ("diabetes", load_diabetes, RandomForestRegressor(100, min_samples_leaf=3)),
    ):
        x, y = load(return_X_y=True)
        scores, seconds = {}, {}
        for seed in range(seeds):
            strata = y if is_classifier(forest) else None
            x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=seed, stratify=strata)
            for title, model in models(forest, seed).items():
                started = time.process_time()
                model.fit(x_train, y_train)
                seconds.setdefault(title, []).append(time.process_time() - started)
                scores.setdefault(title, []).append(model.score(x_test, y_test))
        for title, found in scores.items():
            print(f"| {name} | {title} | {np.mean(found):.3f} | {np.std(found, ddof=1):.3f} | {np.mean(seconds[title]):.1f} |", flush=True)


if __name__ == "__main__":
    main()
