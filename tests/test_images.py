import json
from pathlib import Path

import datasets
import pytest
from PIL import Image

from captum_moxi.demo import demo_classifier
from captum_moxi.images import open_image, read_images
from captum_moxi.models import ImageClassifier

datasets.disable_progress_bars()


@pytest.fixture(scope="module")
def classifier() -> ImageClassifier:
    """Classes '0' to '30'."""
    return demo_classifier("cpu")


class Named:
    """Stands for a classifier of these classes."""

    def __init__(self, *labels: str) -> None:
        self.labels = list(labels)


def picture(path: Path, colour: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), colour).save(path)


def test_a_camera_held_on_its_side(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    image = open_image(tmp_path / "a.jpg")
    assert image.size == (6, 8) and image.mode == "RGB"


def test_a_folder_of_any_name(tmp_path: Path, classifier: ImageClassifier) -> None:
    picture(tmp_path / "run [1]" / "a.png")
    assert list(read_images(str(tmp_path / "run [1]"), classifier).names) == ["a.png"]


def test_folders_are_classes(tmp_path: Path, classifier: ImageClassifier) -> None:
    for name in ("7/b.png", "7/a.png", "21/c.png"):
        picture(tmp_path / name)
    images = read_images(str(tmp_path), classifier)
    assert dict(zip(images.names, images.labels or [], strict=True)) == {"21/c.png": 21, "7/a.png": 7, "7/b.png": 7}
    assert images.open(0).size == (8, 6)
    assert len(read_images(str(tmp_path), classifier, limit=2)) == 2


def test_a_name_is_no_split_and_other_files_are_no_images(tmp_path: Path, classifier: ImageClassifier) -> None:
    for name in ("3_bullet_train.png", "4_test_tube.png", "5_hen.png", "train/6_egg.PNG"):
        picture(tmp_path / name)
    (tmp_path / "notes.txt").write_text("taken on Monday")
    assert read_images(str(tmp_path), classifier, label_pattern=r"(\d)_").labels == [3, 4, 5, 6]


def test_metadata_has_classes(tmp_path: Path, classifier: ImageClassifier) -> None:
    for name in ("b.png", "a.png"):
        picture(tmp_path / name)
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,3\nb.png,30\n")
    images = read_images(str(tmp_path), classifier)
    assert dict(zip(images.names, images.labels or [], strict=True)) == {"a.png": 3, "b.png": 30}


def test_names_have_classes(tmp_path: Path, classifier: ImageClassifier) -> None:
    for name in ("0007_b.png", "0012_a.png"):
        picture(tmp_path / name)
    assert read_images(str(tmp_path), classifier).labels is None
    assert read_images(str(tmp_path), classifier, label_pattern=r"(\d+)_").labels == [7, 12]
    with pytest.raises(ValueError, match="is no regular expression"):
        read_images(str(tmp_path), classifier, label_pattern=r"(\d+")
    for pattern in (r"(\d+)-", r"\d+_"):
        with pytest.raises(ValueError, match=r"finds no class in '0007_b\.png'"):
            read_images(str(tmp_path), classifier, label_pattern=pattern)


def test_synonyms_are_classes_and_what_two_share_is_none(tmp_path: Path) -> None:
    birds = Named("tench, Tinca tinca", "crane (n1)", "crane (n2)", "hen")
    for name in ("Tinca Tinca/a.png", "hen/b.png"):
        picture(tmp_path / "good" / name)
    assert read_images(str(tmp_path / "good"), birds).labels == [0, 3]  # type: ignore[arg-type]
    for name in ("crane/a.png", "hen/b.png"):
        picture(tmp_path / "bad" / name)
    assert read_images(str(tmp_path / "bad"), birds).labels == [None, 3]  # type: ignore[arg-type]


def test_as_many_folders_as_classes_are_those_in_order(tmp_path: Path) -> None:
    for name in ("n01/a.png", "n02/b.png", "n03/c.png"):
        picture(tmp_path / name)
    assert read_images(str(tmp_path), Named("tench", "shark", "ray")).labels == [0, 1, 2]  # type: ignore[arg-type]
    # that one is known shows that names are meant, not places
    found = read_images(str(tmp_path), Named("tench", "n02", "ray"))  # type: ignore[arg-type]
    assert found.labels == [None, 1, None]


def test_one_folder_is_a_class_too(tmp_path: Path, classifier: ImageClassifier) -> None:
    picture(tmp_path / "17" / "a.png")
    assert read_images(str(tmp_path), classifier).labels == [17]
    assert read_images(str(tmp_path / "17"), classifier).labels is None


def test_a_data_set_in_parquet(tmp_path: Path, classifier: ImageClassifier) -> None:
    pictures = [Image.new("RGB", (8, 6), colour) for colour in ("red", "blue")]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["9", "4"])})
    for split, order in (("train", [0, 1]), ("test", [1, 1])):
        data = {"image": [pictures[i] for i in order], "label": order}
        datasets.Dataset.from_dict(data, features=features).to_parquet(str(tmp_path / f"{split}-0.parquet"))
    features["label"] = datasets.ClassLabel(names=["9", "4"])
    unlabelled = {"image": pictures, "label": [-1, 1]}
    datasets.Dataset.from_dict(unlabelled, features=features).to_parquet(str(tmp_path / "validation-0.parquet"))
    assert read_images(str(tmp_path), classifier, split="validation").labels == [None, 4]
    (tmp_path / "validation-0.parquet").unlink()
    images = read_images(str(tmp_path), classifier, split="train")
    assert images.labels == [9, 4] and list(images.names) == ["train/00000000", "train/00000001"]
    assert images.open(1).getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(ValueError, match="has the splits train, test; pass one as split"):
        read_images(str(tmp_path), classifier)
    with pytest.raises(ValueError, match="has no split 'dev'"):
        read_images(str(tmp_path), classifier, split="dev")


def test_the_only_column_of_classes_has_the_labels(tmp_path: Path, classifier: ImageClassifier) -> None:
    names = datasets.ClassLabel(names=["9", "4"])
    data = {"img": [Image.new("RGB", (8, 6))] * 2, "fine": [1, 0], "coarse": [0, 0]}
    for columns, labels in ((["fine"], [4, 9]), (["fine", "coarse"], None)):
        features = datasets.Features({"img": datasets.Image()} | dict.fromkeys(columns, names))
        kept = {name: data[name] for name in features}
        datasets.Dataset.from_dict(kept, features=features).to_parquet(str(tmp_path / "a.parquet"))
        assert read_images(str(tmp_path), classifier).labels == labels


def test_what_cannot_be_read_is_told_when_opened(tmp_path: Path, classifier: ImageClassifier) -> None:
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text(json.dumps("no image"))
    images = read_images(str(tmp_path), classifier)
    images.open(0)
    with pytest.raises(ValueError, match="no image that Pillow can read"):
        images.open(1)


def test_what_is_no_data(tmp_path: Path, classifier: ImageClassifier) -> None:
    with pytest.raises(ValueError, match="is no folder"):
        read_images(str(tmp_path / "none"), classifier)
    with pytest.raises(ValueError, match="could not be read"):
        read_images(str(tmp_path), classifier)
    (tmp_path / "words.csv").write_text("text,label\nhello,1\n")
    with pytest.raises(ValueError, match="no column of images, but text, label"):
        read_images(str(tmp_path), classifier)


def test_a_map_gives_labels_to_a_model_of_fewer_classes(tmp_path: Path) -> None:
    pets = Named("cat", "dog, hound")
    for name in ("beagle/a.png", "lynx/b.png", "tabby/c.png", "tabby/d.png"):
        picture(tmp_path / name)
    of = {"tabby": "cat", "beagle": "1"}
    images = read_images(str(tmp_path), pets, label_map=of)  # type: ignore[arg-type]
    assert list(images.names) == ["beagle/a.png", "tabby/c.png", "tabby/d.png"] and images.labels == [1, 0, 0]
    assert images.open(1).size == (8, 6)
    # the first of those that are left
    images = read_images(str(tmp_path), pets, limit=2, label_map=of)  # type: ignore[arg-type]
    assert list(images.names) == ["beagle/a.png", "tabby/c.png"]
    images = read_images(str(tmp_path), pets, label_map={"lynx": "lion"})  # type: ignore[arg-type]
    assert images.labels == [None] and images.given == ["lynx"]
    with pytest.raises(
        ValueError, match=r"label_map names none of the labels of data .*, such as 'beagle', 'lynx', 'tabby'; pass"
    ):
        read_images(str(tmp_path), pets, label_map={"cat": "cat"})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="has no labels for label_map"):
        read_images(str(tmp_path / "lynx"), pets, label_map=of)  # type: ignore[arg-type]


@pytest.mark.parametrize(("data", "asked"), [("owner/name", ("owner/name", None)), ("name:fine", ("name", "fine"))])
def test_a_name_is_of_the_hub(
    monkeypatch: pytest.MonkeyPatch, classifier: ImageClassifier, data: str, asked: tuple[str, str | None]
) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["9", "4"])})
    rows = {"image": [Image.new("RGB", (8, 6))] * 2, "label": [1, 0]}
    hub = {split: datasets.Dataset.from_dict(rows, features=features) for split in ("train", "test")}
    calls: list[tuple[str, str | None]] = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *names: calls.append(names) or hub)
    images = read_images(data, classifier, split="test", limit=1)
    assert calls == [asked] and list(images.names) == ["test/00000000"] and images.labels == [4]
