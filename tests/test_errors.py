"""Messages of errors."""

import pytest

from captum_moxi.errors import describe_error, without_folders


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("[Errno 13] Permission denied: '/srv/uploads/cat.jpg'", "[Errno 13] Permission denied: 'cat.jpg'"),
        (r"no file C:\Users\me\cat.jpg here", "no file cat.jpg here"),
        ("choose one of /srv/vit, google/vit/base", "choose one of vit, google/vit/base"),
        ("see https://huggingface.co/docs/hub", "see https://huggingface.co/docs/hub"),
        ("12/14 patches and a / b", "12/14 patches and a / b"),
    ],
)
def test_folders_are_left_out(message: str, expected: str) -> None:
    assert without_folders(message) == expected


def test_an_error_without_a_message_is_named() -> None:
    assert describe_error(MemoryError()) == "out of memory"
    assert describe_error(OSError()) == "OSError"
