"""A folder of pictures that the embedded model knows, for tests of runs."""

from pathlib import Path

from PIL import ImageChops

from captum_moxi.demo import demo_images

# Images of each status in the folder, if only correctly classified images are kept.
EXPLAINED, WRONG, UNREADABLE = 12, 1, 1
TOTAL = EXPLAINED + WRONG + UNREADABLE


def write_pictures(folder: Path) -> Path:
    """Writes each demo picture three times, shifted by up to one pixel, into folders that are named after the sums.

    One more picture is in a wrong folder, next to a file that is not an image.
    """
    for name, image, label in demo_images():
        for shift in range(3):
            path = folder / label / f"{Path(name).stem}_{shift}.png"
            path.parent.mkdir(exist_ok=True)
            ImageChops.offset(image, shift - 1, 0).save(path)
    _, image, label = demo_images()[0]
    wrong = folder / str(int(label) + 1)
    wrong.mkdir(exist_ok=True)
    image.save(wrong / "wrong.png")
    (wrong / "broken.png").write_text("not an image")
    return folder
