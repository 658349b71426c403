"""The settings that experiments share, and the folder of their results."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from zoo import resnet

from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.settings import Settings
from captum_moxi.methods import DEFAULT_METHODS


def test_without_methods_the_default_ones_that_support_the_model_run(settings: Settings, tmp_path: Path) -> None:
    assert Study.prepare(settings, tmp_path / "out").settings.methods == tuple(DEFAULT_METHODS)
    resnet().save_pretrained(tmp_path / "resnet")
    processor = Path(settings.model) / "preprocessor_config.json"
    (tmp_path / "resnet" / processor.name).write_bytes(processor.read_bytes())
    convolutional = replace(settings, model=str(tmp_path / "resnet"), keep="all")
    methods = Study.prepare(convolutional, tmp_path / "out").settings.methods
    # A ResNet has no attention.
    assert methods == tuple(name for name in DEFAULT_METHODS if name != "rollout")
    with pytest.raises(ValueError, match="AttentionRollout needs one token for each patch"):
        Study.prepare(convolutional, tmp_path / "out", methods=["moxi", "rollout"])


def test_a_folder_holds_results_of_one_group_of_settings(study: Study) -> None:
    study.open_folder()
    replace(study, limit=1).open_folder()
    other = replace(study, settings=replace(study.settings, n_steps=1))
    with pytest.raises(ValueError, match=r"n_steps was None and is 1[)]; pass the same settings or another folder"):
        other.open_folder()


def test_other_files_are_not_mixed_with_results(study: Study) -> None:
    study.out.mkdir()
    (study.out / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"is not empty and has no settings\.json; pass a new folder"):
        study.open_folder()
    (study.out / "settings.json").write_text("[")
    with pytest.raises(ValueError, match=r"settings\.json is damaged"):
        study.open_folder()


def test_bad_settings_are_rejected_before_anything_is_written(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="method 'moksi' is unknown"):
        Study.prepare(settings, tmp_path / "out", methods=["moksi"])
    with pytest.raises(ValueError, match="grid"):
        Study.prepare(replace(settings, grid=3), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_label_map_is_stored_for_the_commands(study: Study) -> None:
    mapped = replace(study, settings=replace(study.settings, label_map={"cat": "281"}))
    mapped.open_folder()
    assert json.loads(mapped.label_map.read_text()) == {"cat": "281"}


def test_slow_experiments_have_a_limit_of_their_own(study: Study) -> None:
    assert study.limit_of_slow_experiments == 2
    assert replace(study, slow_limit=1).limit_of_slow_experiments == 1
    assert replace(study, slow_limit=9).limit_of_slow_experiments == 2
    assert replace(study, limit=None).limit_of_slow_experiments is None
