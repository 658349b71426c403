"""Errors that a command or the app reports to its user. All other errors are bugs and keep their traceback."""

import re

from PIL import Image

# Errors of unsuitable images, models and options.
REPORTED_ERRORS = (ValueError, OSError, RuntimeError, MemoryError, Image.DecompressionBombError)


def describe_error(error: BaseException) -> str:
    """Return the message of an error. Python's own memory errors have no message."""
    return str(error) or ("out of memory" if isinstance(error, MemoryError) else type(error).__name__)


# The folders of an absolute path, on POSIX and Windows. Slashes of URLs and of hub names do not begin a path.
_FOLDERS = re.compile(r"""(?<![\w:./\\-])(?:[A-Za-z]:)?[/\\](?:[^\s'"<>/\\]+[/\\]+)+""")


def without_folders(message: str) -> str:
    """Replace absolute paths in a message by the names of their files, for users who must not learn of the folders.

    Args:
        message (str): Message of an error.

    Examples::

        >>> without_folders("[Errno 13] Permission denied: '/srv/uploads/cat.jpg'")
        "[Errno 13] Permission denied: 'cat.jpg'"
    """
    return _FOLDERS.sub("", message)
