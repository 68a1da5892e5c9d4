"""That there is a torch which is new enough: imported before all that needs it."""

_OLDEST = (2, 13)
_INSTALL = 'pip install "torch>=2.13"'

try:
    import torch
except ImportError as error:
    raise ImportError(f"pymimic.torch: expected PyTorch, which cannot be imported: {error}; {_INSTALL}") from error
if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _OLDEST:
    raise ImportError(f"pymimic.torch: expected PyTorch {'.'.join(map(str, _OLDEST))} or later, got {torch.__version__}; {_INSTALL}")
