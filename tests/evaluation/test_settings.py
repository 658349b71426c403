import json
from dataclasses import replace
from pathlib import Path

import pytest

from captum_moxi.evaluation.settings import Settings, read_label_map


def test_settings_survive_json(settings: Settings) -> None:
    changed = replace(settings, methods=["moxi", "random"], modes=["deletion"], stop=None, label_map={"a": "3"})
    assert Settings.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


def test_settings_from_a_dictionary_ignore_other_entries_and_have_defaults() -> None:
    assert Settings.from_dict({"model": "m", "data": "d", "severity": 5}) == Settings("m", "d")


def test_settings_are_independent_of_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    settings = Settings("model", "owner/name").with_absolute_paths()
    assert settings.model == str((tmp_path / "model").resolve()) and settings.data == "owner/name"


def test_a_label_map_has_names_or_indices(tmp_path: Path) -> None:
    path = tmp_path / "map.json"
    path.write_text('{"cat": 3, "dog": "animal"}')
    assert read_label_map(path) == {"cat": "3", "dog": "animal"}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not valid JSON"), ("[1]", "is not an object of class names"), ('{"a": []}', "is not an object of")],
)
def test_other_json_is_rejected_as_a_label_map(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "map.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_label_map(path)
