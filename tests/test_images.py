import io
from pathlib import Path

import pytest
from PIL import Image

from captum_moxi.images import expand_paths, open_image


def test_photographs_are_rotated_upright_and_converted_to_rgb(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (8, 6)).save(tmp_path / "a.jpg", exif=exif)
    for source in (tmp_path / "a.jpg", str(tmp_path / "a.jpg"), io.BytesIO((tmp_path / "a.jpg").read_bytes())):
        image = open_image(source)
        assert image.size == (6, 8) and image.mode == "RGB"


def test_a_file_that_is_not_a_complete_image_is_explained(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("not an image")
    Image.effect_noise((64, 64), 50).save(tmp_path / "truncated.png")
    complete = (tmp_path / "truncated.png").read_bytes()
    (tmp_path / "truncated.png").write_bytes(complete[: len(complete) // 2])
    (tmp_path / "empty").mkdir()
    for name, message in (
        ("missing.png", "no such file"),
        ("text.png", "not an image that Pillow can read"),
        ("truncated.png", "may be truncated"),
        ("empty", "contains no images"),
    ):
        with pytest.raises(ValueError, match=message):
            open_image(tmp_path / name)


def test_folders_are_replaced_by_their_images_in_the_order_of_names(tmp_path: Path) -> None:
    for name in ("b.png", "a.JPG", "notes.txt", "c.webp"):
        (tmp_path / name).touch()
    (tmp_path / "deeper").mkdir()
    (tmp_path / "deeper" / "d.png").touch()
    (tmp_path / "empty").mkdir()
    assert expand_paths(["missing.png", tmp_path, tmp_path / "empty"]) == [
        "missing.png",
        *(str(tmp_path / name) for name in ("a.JPG", "b.png", "c.webp")),
        str(tmp_path / "empty"),
    ]
