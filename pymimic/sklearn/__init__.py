"""Mimics as scikit-learn's estimators: `MimicClassifier` and `MimicRegressor`. Needs the extra `sklearn`."""

LEAST = (1, 6)  # the first with validate_data and with tags as methods

try:
    import sklearn
except ImportError as error:
    raise ImportError('pymimic.sklearn: expected scikit-learn 1.6 or newer, got none: pip install "scikit-learn>=1.6"') from error
if tuple(map(int, sklearn.__version__.split(".")[:2])) < LEAST:
    raise ImportError(
        f'pymimic.sklearn: expected scikit-learn 1.6 or newer, got {sklearn.__version__}: pip install --upgrade "scikit-learn>=1.6"'
    )

from .classifier import MimicClassifier  # noqa: E402
from .regressor import MimicRegressor  # noqa: E402

__all__ = ["MimicClassifier", "MimicRegressor"]
