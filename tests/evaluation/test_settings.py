import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from captum_moxi.evaluation.settings import Settings, read_label_map


def test_settings_survive_json(settings: Settings) -> None:
    changed = replace(settings, methods=["moxi", "random"], modes=["deletion"], stop=None, label_map={"a": "3"})
    assert Settings.from_dict(json.loads(json.dumps(changed.to_dict()))) == changed


def test_settings_from_a_dictionary_ignore_other_entries_and_have_defaults() -> None:
    assert Settings.from_dict({"model": "m", "data": "d", "severity": 5}) == Settings("m", "d")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": None}, "model is None; pass a hub name or a folder"),
        ({"data": ""}, "data is ''; pass a folder or the name of a dataset"),
        ({"split": 3}, "split is 3"),
        ({"label_pattern": ["a"]}, r"label_pattern is \['a'\]"),
        ({"label_map": ["a"]}, r"label_map is \['a'\]; pass a mapping"),
        ({"label_map": {"a": 3}}, "label_map is {'a': 3}"),
        ({"keep": "wrong"}, "keep is 'wrong'; pass 'right' or 'all'"),
        ({"methods": []}, r"methods is \[\]; pass a list with at least one name"),
        ({"methods": "moxi"}, "methods is 'moxi'"),
        ({"methods": [None]}, r"methods is \[None\]"),
        ({"modes": ["insertion", "sideways"]}, "modes is .*; pass a list of 'insertion', 'deletion' or both"),
        ({"modes": None}, "modes is None"),
        ({"n_steps": 0}, "n_steps is 0; pass an int of at least 1, or None"),
        ({"n_steps": float("nan")}, "n_steps is nan"),
        ({"n_steps": True}, "n_steps is True"),
        ({"n_steps": 2.0}, "n_steps is 2.0"),
        ({"stop": "never"}, "stop is 'never'; pass 'flip' or None"),
        ({"grid": "2"}, "grid is '2'"),
        ({"removal": 0}, "removal is 0"),
        ({"reward": None}, "reward is None; pass the name of a reward"),
        ({"screen": {}}, "screen is {}"),
        ({"minimal": 1}, "minimal is 1; pass True or False"),
        ({"alternatives": 0}, "alternatives is 0; pass an int of at least 1, or None"),
        ({"minimal": True, "stop": None}, "minimal is True, but stop is None.*; pass stop='flip'"),
        ({"alternatives": 2, "stop": None}, "alternatives is 2, but stop is None.*; pass stop='flip'"),
    ],
)
def test_settings_of_the_wrong_type_are_rejected(settings: Settings, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(settings, **changes)
    with pytest.raises(ValueError, match=message):
        Settings.from_dict(settings.to_dict() | changes)


@pytest.mark.parametrize("name", ["model", "data"])
def test_a_missing_setting_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f"the setting {name} is missing"):
        Settings.from_dict({key: "x" for key in ("model", "data") if key != name})


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
