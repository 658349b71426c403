"""Command lines, quoted by hand."""

from dataclasses import replace
from pathlib import Path

from captum_moxi.evaluation.experiments.commands import command, evaluate_command, reproduce_command
from captum_moxi.evaluation.experiments.study import Study
from captum_moxi.evaluation.settings import Settings

STUDY = Study(
    Settings(
        model="a model",
        data="photographs",
        label_pattern=r"(\d+)_",
        methods=("moxi", "gradcam"),
        n_steps=30,
        stop=None,
        screen="all",
    ),
    Path("out"),
    limit=50,
    slow_limit=10,
    resamples=100,
)


def test_options_are_quoted_repeated_and_left_out() -> None:
    options = {"classes": ("a cat", "dogs"), "limit": 3, "minimal": True, "grid": None, "keep": False, "n_steps": 4}
    expected = "captum-moxi evaluate 'my run' --classes 'a cat' --classes dogs --limit 3 --minimal --n-steps 4"
    assert command("evaluate", "my run", **options) == expected


def test_the_command_of_a_study_has_its_options() -> None:
    assert reproduce_command(STUDY, only=["curves", "attack"]) == (
        r"captum-moxi reproduce --model 'a model' --data photographs --label-pattern '(\d+)_' --only curves,attack "
        "--limit 50 --slow-limit 10 --methods moxi,gradcam --n-steps 30 --screen all --resamples 100 --out out"
    )


def test_the_command_of_a_run_has_the_changed_settings() -> None:
    changes = {"modes": ("insertion",), "removal": "attention:3", "methods": ("moxi",)}
    assert evaluate_command(STUDY, Path("out/layer"), limit=10, batch_size=1, **changes) == (
        r"captum-moxi evaluate --model 'a model' --data photographs --label-pattern '(\d+)_' --limit 10 --methods moxi "
        "--mode insertion --stop never --n-steps 30 --removal attention:3 --screen all --batch-size 1 --out out/layer"
    )


def test_a_label_map_is_the_file_of_the_study() -> None:
    study = replace(STUDY, settings=replace(STUDY.settings, label_map={"cat": "281"}))
    assert "--label-map out/label-map.json" in reproduce_command(study)
    assert "--label-map out/label-map.json" in evaluate_command(study, Path("out/curves"))
