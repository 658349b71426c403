from pathlib import Path

import datasets
import pytest
from PIL import Image

from captum_moxi.evaluation.data import read_images

CLASSES = [str(index) for index in range(31)]


def save_picture(path: Path, color: str = "red") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), color).save(path)


def save_pictures(folder: Path, *names: str) -> None:
    for name in names:
        save_picture(folder / name)


def save_parquet(path: Path, rows: dict[str, list[object]], class_columns: list[str], image_column: str) -> None:
    features = datasets.Features(
        {image_column: datasets.Image()} | {name: datasets.ClassLabel(names=["9", "4"]) for name in class_columns}
    )
    datasets.Dataset.from_dict({name: rows[name] for name in features}, features=features).to_parquet(str(path))


def test_the_name_of_a_folder_may_contain_pattern_characters(tmp_path: Path) -> None:
    save_picture(tmp_path / "run [1]" / "a.png")
    assert list(read_images(str(tmp_path / "run [1]"), classes=CLASSES).names) == ["a.png"]


def test_folders_are_labels(tmp_path: Path) -> None:
    save_pictures(tmp_path, "7/b.png", "7/a.png", "21/c.png")
    images = read_images(str(tmp_path), classes=CLASSES)
    assert dict(zip(images.names, images.labels or [], strict=True)) == {"21/c.png": 21, "7/a.png": 7, "7/b.png": 7}
    assert images.open(0).size == (8, 6)
    assert len(read_images(str(tmp_path), classes=CLASSES, limit=2)) == 2


def test_an_image_is_found_by_its_name(tmp_path: Path) -> None:
    save_pictures(tmp_path, "7/a.png", "7/b.png")
    images = read_images(str(tmp_path), classes=CLASSES)
    assert images.index_of("7/b.png") == 1
    with pytest.raises(ValueError, match=r"image '7/c\.png' is not in the data"):
        images.index_of("7/c.png")


def test_file_names_are_not_splits_and_other_files_are_ignored(tmp_path: Path) -> None:
    save_pictures(tmp_path, "3_bullet_train.png", "4_test_tube.png", "5_hen.png", "train/6_egg.PNG")
    (tmp_path / "notes.txt").write_text("taken on Monday")
    assert read_images(str(tmp_path), classes=CLASSES, label_pattern=r"(\d)_").labels == [3, 4, 5, 6]


def test_a_metadata_file_has_labels(tmp_path: Path) -> None:
    save_pictures(tmp_path, "b.png", "a.png")
    (tmp_path / "metadata.csv").write_text("file_name,label\na.png,3\nb.png,30\n")
    images = read_images(str(tmp_path), classes=CLASSES)
    assert dict(zip(images.names, images.labels or [], strict=True)) == {"a.png": 3, "b.png": 30}


def test_a_pattern_finds_labels_in_names(tmp_path: Path) -> None:
    save_pictures(tmp_path, "0007_b.png", "0012_a.png")
    assert read_images(str(tmp_path), classes=CLASSES).labels is None
    assert read_images(str(tmp_path), classes=CLASSES, label_pattern=r"(\d+)_").labels == [7, 12]
    with pytest.raises(ValueError, match="is not a regular expression"):
        read_images(str(tmp_path), classes=CLASSES, label_pattern=r"(\d+")


@pytest.mark.parametrize("pattern", [r"(\d+)-", r"\d+_"])
def test_a_pattern_without_a_match_or_a_group_is_rejected(tmp_path: Path, pattern: str) -> None:
    save_pictures(tmp_path, "0007_b.png", "0012_a.png")
    with pytest.raises(ValueError, match=r"finds no label in '0007_b\.png'"):
        read_images(str(tmp_path), classes=CLASSES, label_pattern=pattern)


def test_folders_match_synonyms_but_not_names_that_two_classes_share(tmp_path: Path) -> None:
    birds = ["tench, Tinca tinca", "crane (n1)", "crane (n2)", "hen"]
    save_pictures(tmp_path / "good", "Tinca Tinca/a.png", "hen/b.png")
    assert read_images(str(tmp_path / "good"), classes=birds).labels == [0, 3]
    save_pictures(tmp_path / "bad", "crane/a.png", "hen/b.png")
    assert read_images(str(tmp_path / "bad"), classes=birds).labels == [None, 3]


def test_as_many_unknown_folders_as_classes_match_in_order(tmp_path: Path) -> None:
    save_pictures(tmp_path, "n01/a.png", "n02/b.png", "n03/c.png")
    assert read_images(str(tmp_path), classes=["tench", "shark", "ray"]).labels == [0, 1, 2]
    # One known name shows that the names have a meaning.
    assert read_images(str(tmp_path), classes=["tench", "n02", "ray"]).labels == [None, 1, None]


def test_a_single_subfolder_is_a_label_too(tmp_path: Path) -> None:
    save_picture(tmp_path / "17" / "a.png")
    assert read_images(str(tmp_path), classes=CLASSES).labels == [17]
    assert read_images(str(tmp_path / "17"), classes=CLASSES).labels is None


def test_a_parquet_data_set_has_splits_and_labels(tmp_path: Path) -> None:
    pictures: list[object] = [Image.new("RGB", (8, 6), color) for color in ("red", "blue")]
    for split, order in (("train", [0, 1]), ("test", [1, 1])):
        rows: dict[str, list[object]] = {"image": [pictures[i] for i in order], "label": list(order)}
        save_parquet(tmp_path / f"{split}-0.parquet", rows, ["label"], "image")
    images = read_images(str(tmp_path), classes=CLASSES, split="train")
    assert images.labels == [9, 4] and list(images.names) == ["train/00000000", "train/00000001"]
    assert images.open(1).getpixel((0, 0)) == (0, 0, 255)
    with pytest.raises(ValueError, match="has the splits train, test; pass one of them as split"):
        read_images(str(tmp_path), classes=CLASSES)
    with pytest.raises(ValueError, match="has no split 'dev'; pass one of train, test"):
        read_images(str(tmp_path), classes=CLASSES, split="dev")


def test_a_label_of_minus_one_is_missing(tmp_path: Path) -> None:
    pictures: list[object] = [Image.new("RGB", (8, 6))] * 2
    save_parquet(tmp_path / "test-0.parquet", {"image": pictures, "label": [-1, 1]}, ["label"], "image")
    assert read_images(str(tmp_path), classes=CLASSES).labels == [None, 4]


@pytest.mark.parametrize(("columns", "labels"), [(["fine"], [4, 9]), (["fine", "coarse"], None)])
def test_the_only_column_of_class_labels_has_the_labels(
    tmp_path: Path, columns: list[str], labels: list[int] | None
) -> None:
    rows: dict[str, list[object]] = {"img": [Image.new("RGB", (8, 6))] * 2, "fine": [1, 0], "coarse": [0, 0]}
    save_parquet(tmp_path / "a.parquet", rows, columns, "img")
    assert read_images(str(tmp_path), classes=CLASSES).labels == labels


def test_an_unreadable_image_raises_an_error_when_it_is_opened(tmp_path: Path) -> None:
    save_picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("not an image")
    images = read_images(str(tmp_path), classes=CLASSES)
    images.open(0)
    with pytest.raises(ValueError, match="image"):
        images.open(1)


def test_data_without_images_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        read_images(str(tmp_path / "missing"), classes=CLASSES)
    with pytest.raises(ValueError, match="could not be read"):
        read_images(str(tmp_path), classes=CLASSES)
    (tmp_path / "words.csv").write_text("text,label\nhello,1\n")
    with pytest.raises(ValueError, match="has no column of images, only text, label"):
        read_images(str(tmp_path), classes=CLASSES)


PETS = ["cat", "dog, hound"]


@pytest.fixture
def breeds(tmp_path: Path) -> str:
    save_pictures(tmp_path, "beagle/a.png", "lynx/b.png", "tabby/c.png", "tabby/d.png")
    return str(tmp_path)


def test_a_label_map_selects_and_translates_labels(breeds: str) -> None:
    label_map = {"tabby": "cat", "beagle": "1"}
    images = read_images(breeds, classes=PETS, label_map=label_map)
    assert list(images.names) == ["beagle/a.png", "tabby/c.png", "tabby/d.png"] and images.labels == [1, 0, 0]
    assert images.open(1).size == (8, 6)
    # The limit applies to the selected images.
    images = read_images(breeds, classes=PETS, label_map=label_map, limit=2)
    assert list(images.names) == ["beagle/a.png", "tabby/c.png"]


def test_a_label_map_to_an_unknown_class_gives_no_class(breeds: str) -> None:
    images = read_images(breeds, classes=PETS, label_map={"lynx": "lion"})
    assert images.labels == [None] and images.label_names == ["lynx"]


def test_a_label_map_without_labels_of_the_data_is_rejected(breeds: str) -> None:
    with pytest.raises(
        ValueError, match=r"label_map has none of the labels of data .*, for example 'beagle', 'lynx', 'tabby'; use"
    ):
        read_images(breeds, classes=PETS, label_map={"cat": "cat"})
    with pytest.raises(ValueError, match="has no labels for label_map"):
        read_images(f"{breeds}/lynx", classes=PETS, label_map={"tabby": "cat"})


@pytest.mark.parametrize(("data", "expected"), [("owner/name", ("owner/name", None)), ("name:fine", ("name", "fine"))])
def test_a_name_that_is_not_a_folder_is_loaded_from_the_hub(
    monkeypatch: pytest.MonkeyPatch, data: str, expected: tuple[str, str | None]
) -> None:
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["9", "4"])})
    rows = {"image": [Image.new("RGB", (8, 6))] * 2, "label": [1, 0]}
    hub = {split: datasets.Dataset.from_dict(rows, features=features) for split in ("train", "test")}
    calls: list[tuple[str, str | None]] = []

    def load_dataset(name: str, configuration: str | None) -> dict[str, datasets.Dataset]:
        calls.append((name, configuration))
        return hub

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    # The hub answers.
    monkeypatch.setattr("captum_moxi.models.hub.get_hf_file_metadata", lambda url, timeout: None)
    images = read_images(data, classes=CLASSES, split="test", limit=1)
    assert calls == [expected] and list(images.names) == ["test/00000000"] and images.labels == [4]


def test_a_dataset_that_cannot_be_reached_is_reported_after_one_request_unless_it_is_cached(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    requests: list[str] = []

    def unreachable(url: str, timeout: float) -> None:
        requests.append(url)
        raise ConnectionError("no route to the hub")

    def load_dataset(name: str, configuration: str | None) -> None:
        raise ValueError("loaded from the cache")

    monkeypatch.setattr("captum_moxi.models.hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    with pytest.raises(ValueError, match=r"could not be read \(no route to the hub\); pass a folder"):
        read_images("owner/FlowerPhotos", classes=CLASSES)
    assert len(requests) == 1 and "datasets/owner/FlowerPhotos" in requests[0]
    (tmp_path / "owner___flower_photos").mkdir()
    with pytest.raises(ValueError, match="loaded from the cache"):
        read_images("owner/FlowerPhotos", classes=CLASSES)
