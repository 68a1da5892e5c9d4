"""The exceptions that are pymimic's own. Each is also a ValueError, or a RuntimeError, so that a caller may catch either."""

from .foreign import printable


class BackendUnavailableError(ValueError):
    """A backend was asked for by name, or by the kind of array, that this installation cannot run."""


class _OfFilesError(ValueError):
    """What files hold may stand in the message: it is one line that can be printed."""

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


class FileFormatError(_OfFilesError):
    """A file is truncated, damaged, or not one that pymimic wrote."""


class ManifestError(_OfFilesError):
    """A transfer set's files do not match its manifest."""


class TrainingDivergedError(ValueError):
    """The loss became NaN or infinite; the message gives the step."""


class CudaError(ValueError):
    """A call of the CUDA runtime failed; the message says which, why, and what to do."""


class GroupError(RuntimeError):
    """Another process of the group failed or is gone; the message names it as far as that can be known."""
