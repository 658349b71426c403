"""Errors that a command or the app reports to its user. All other errors are bugs and keep their traceback."""

from PIL import Image

# Errors of unsuitable images, models and options.
REPORTED_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, Image.DecompressionBombError)


def describe_error(error: BaseException) -> str:
    """Return the message of an error. Python's own memory errors have no message."""
    return str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)
