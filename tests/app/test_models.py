"""The models of the app: offered or not, loaded once, and dropped when others are used."""

import threading
from pathlib import Path

import pytest
import zero_shot_models

from captum_moxi.app import models as app_models
from captum_moxi.app.models import LONGEST_CLASS, MOST_CLASSES, MOST_LOADED, AppModels
from captum_moxi.demo import FOLDER
from captum_moxi.demo import NAME as DEMO


@pytest.fixture
def folder() -> str:
    return str(FOLDER / "model")


def test_the_embedded_model_is_always_offered() -> None:
    models = AppModels(device="cpu")
    assert models.names == [DEMO]
    assert models.get(DEMO).name == DEMO


def test_a_model_is_loaded_once_for_all_users(folder: str) -> None:
    models = AppModels([folder], device="cpu")
    loaded = []
    threads = [threading.Thread(target=lambda: loaded.append(models.get(folder))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 4
    assert all(classifier is loaded[0] for classifier in loaded)


def test_other_models_are_accepted_only_on_request(folder: str) -> None:
    with pytest.raises(ValueError, match=f"is not offered; choose one of {DEMO}"):
        AppModels(device="cpu").get(folder)
    assert AppModels(accept_others=True, device="cpu").get(folder).name == folder


def test_a_model_that_does_not_exist_is_reported_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pass a folder written by save_pretrained"):
        AppModels([str(tmp_path / "missing")])


def test_no_model_is_reported() -> None:
    with pytest.raises(ValueError, match="no model is chosen; choose one from the list"):
        AppModels().get("")


def test_the_texts_of_zero_shot_classes(tmp_path: Path) -> None:
    folder = str(zero_shot_models.save("clip", tmp_path))
    models = AppModels([folder], device="cpu")
    assert models.get(folder, classes=["a cat", "a dog"]).labels == ["a cat", "a dog"]
    assert models.get(folder, classes=["a cup", "coffee"]).labels == ["a cup", "coffee"]
    with pytest.raises(ValueError, match="leave the texts of the classes empty"):
        models.get(DEMO, classes=["a cat", "a dog"])


def test_the_model_that_was_used_least_recently_is_dropped(tmp_path: Path) -> None:
    folder = str(zero_shot_models.save("clip", tmp_path))
    models = AppModels([folder], device="cpu")
    texts = [["a cat", word] for word in ("dog", "cup", "coffee", "desk")]
    assert len(texts) == MOST_LOADED
    first, second = (models.get(folder, classes=classes) for classes in texts[:2])
    for classes in texts[2:]:
        models.get(folder, classes=classes)
    assert models.get(folder, classes=texts[0]) is first
    models.get(DEMO)
    assert models.get(folder, classes=texts[0]) is first
    assert models.get(folder, classes=texts[1]) is not second


def test_a_model_that_is_loading_does_not_delay_users_of_loaded_models(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = AppModels([folder], device="cpu")
    demo = models.get(DEMO)
    begun, may_end = threading.Event(), threading.Event()

    def load_slowly(*arguments: object, **options: object) -> object:
        begun.set()
        may_end.wait()
        return load(*arguments, **options)

    load = app_models.load
    monkeypatch.setattr(app_models, "load", load_slowly)
    loading = threading.Thread(target=models.get, args=[folder], daemon=True)
    found: list[object] = []
    using = threading.Thread(target=lambda: found.append(models.get(DEMO)), daemon=True)
    loading.start()
    assert begun.wait(timeout=60)
    using.start()
    using.join(timeout=60)
    is_delayed = using.is_alive()
    may_end.set()
    loading.join()
    assert not is_delayed
    assert found == [demo]


def test_a_model_that_cannot_be_loaded_does_not_block_others(tmp_path: Path) -> None:
    models = AppModels(accept_others=True, device="cpu")
    for _ in range(2):
        with pytest.raises(ValueError, match="contains no config"):
            models.get(str(tmp_path))
    assert models.get(DEMO).name == DEMO


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([f"class {i}" for i in range(MOST_CLASSES + 1)], f"there are {MOST_CLASSES + 1} classes; enter at most"),
        (["a cat", "x" * (LONGEST_CLASS + 1)], f"has {LONGEST_CLASS + 1} characters; enter at most {LONGEST_CLASS}"),
    ],
)
def test_the_texts_of_classes_are_limited(folder: str, classes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AppModels([folder], device="cpu").get(folder, classes=classes)
