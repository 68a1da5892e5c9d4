"""The exceptions that are pymimic's own. Each is also a ValueError, or a RuntimeError, so that a caller may catch either."""


class BackendUnavailableError(ValueError):
    """A backend was asked for by name, or by the kind of array, that this installation cannot run."""


class FileFormatError(ValueError):
    """A file is truncated, damaged, or not one that pymimic wrote."""


class ManifestError(ValueError):
    """A transfer set's files do not match its manifest."""


class TrainingDivergedError(ValueError):
    """The loss became NaN or infinite; the message gives the step."""


class CudaError(ValueError):
    """A call of the CUDA runtime failed; the message says which, why, and what to do."""


class GroupError(RuntimeError):
    """Another process of the group failed or is gone; the message names it as far as that can be known."""
