"""The failure of a run that is no fault of its input."""


class TrainingError(RuntimeError):
    """A run that failed; the command prints the message alone and exits with status 1."""
