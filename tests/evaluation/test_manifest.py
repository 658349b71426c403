import json

import pytest

from captum_moxi.evaluation.manifest import Manifest

MANIFEST = Manifest({"model": "café", "n_steps": 40, "stop": None}, {"torch": "2.6"}, run="0a1b", images=8)


def test_a_manifest_is_read_as_it_was_written() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST


def test_no_flipped_bit_changes_a_value() -> None:
    contents = MANIFEST.to_json().encode()
    for bit in range(8 * len(contents)):
        changed = bytearray(contents)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert Manifest.from_json(bytes(changed)) == MANIFEST
        except ValueError as error:
            assert str(error)


def test_an_edit_needs_the_checksum_removed() -> None:
    entries = json.loads(MANIFEST.to_json())
    entries["settings"]["n_steps"] = 50
    with pytest.raises(ValueError, match="it does not match its checksum; if you edited it, delete its entry"):
        Manifest.from_json(json.dumps(entries))
    del entries["checksum"]
    assert Manifest.from_json(json.dumps(entries)).settings["n_steps"] == 50


def test_a_manifest_of_a_version_without_checksums_is_read() -> None:
    assert Manifest.from_json('{"settings": {"n": 1}, "versions": {}}') == Manifest({"n": 1}, {}, None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is not valid JSON"),
        ("{", "it is not valid JSON"),
        ("[" * 100_000, "it is not valid JSON"),
        ("[]", r"it is \[\], not an object with settings"),
        ("null", "it is null, not an object"),
        ("{}", "settings is null, not an object"),
        ('{"settings": null}', "settings is null, not an object"),
        ('{"settings": [1]}', r"settings is \[1\], not an object"),
        ('{"settings": {}, "versions": 3}', "versions is 3, not an object"),
        ('{"settings": {}, "run": 3}', "run is 3, not a text"),
        ('{"settings": {}, "images": "many"}', 'images is "many", not a whole number'),
        ('{"settings": {}, "images": NaN}', "images is NaN, not a whole number"),
        ('{"settings": {}, "color": 3}', "it has the unknown entry 'color'"),
    ],
)
def test_other_json_is_rejected(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Manifest.from_json(text)
    with pytest.raises(ValueError, match=message):
        Manifest.from_json(text.encode())
