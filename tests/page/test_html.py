"""The page in a browser. Skipped without Bokeh, Playwright or Chromium."""

import base64
import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from browsers import chromium
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from captum_moxi import CoalitionGame, MoXIDeletion, MoXIInsertion, patch_mask
from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.page import PagePath, follow_path, path_page

pytest.importorskip("bokeh", reason="Bokeh is not installed; run pip install '.[html]'")

KINDS = ("photograph", "heat_map", "seen")

# Playwright is optional, so its page has no type here.
BrowserPage = Any
# Opens a page, and returns it with a list of everything that must not happen: errors, warnings, requests.
OpenPage = Callable[..., tuple[BrowserPage, list[str]]]


def demo_game() -> tuple[CoalitionGame, Callable[[Tensor], Tensor], list[str]]:
    """A game with 4 x 4 players on the demo image 6-4-6-3, its conversion to images, and the class names."""
    classifier = demo_classifier("cpu")
    image = next(image for name, image, _ in demo_images() if name == "6-4-6-3.png")
    x = classifier.preprocess(image)
    target = int(classifier.model(x).logits.argmax())
    game = CoalitionGame(classifier.model, x, target=target, feature_mask=patch_mask(tuple(x.shape[2:]), grid=4))
    return game, classifier.to_images, classifier.labels


@pytest.fixture(scope="module")
def moxi() -> list[PagePath]:
    """The paths of insertion and deletion."""
    game, to_images, _ = demo_game()
    (x,), target, mask = game.call.inputs, game.targets, patch_mask(56, grid=4)
    paths = []
    for attribution in (MoXIInsertion(game.call.forward_func), MoXIDeletion(game.call.forward_func)):
        _, selection = attribution.attribute(x, target=target, feature_mask=mask, return_selection=True)
        paths.append(follow_path(game, selection.order[0].tolist(), selection.mode, to_images=to_images))
    return paths


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory, moxi: list[PagePath]) -> Path:
    """A folder with a page of one method, moxi.html, and a page of two methods, methods.html."""
    folder = tmp_path_factory.mktemp("pages")
    game, to_images, labels = demo_game()
    backwards = [
        follow_path(game, list(range(15, -1, -1)), path.mode, to_images=to_images, method="Backwards") for path in moxi
    ]
    for name, paths in (("moxi", moxi), ("methods", moxi + backwards)):
        (folder / f"{name}.html").write_text(path_page(paths, labels=labels, title=name), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def open_page(browser: Any) -> OpenPage:
    def open_in_browser(path: Path, width: int = 1320) -> tuple[BrowserPage, list[str]]:
        problems: list[str] = []
        page = browser.new_page(viewport={"width": width, "height": 700})
        page.set_default_timeout(10_000)
        page.on("console", lambda entry: problems.append(entry.text) if entry.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: None if is_local(request.url, path) else problems.append(request.url))
        page.goto(path.as_uri())
        page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
        return page, problems

    return open_in_browser


def is_local(url: str, path: Path) -> bool:
    return url.startswith(("data:", "blob:")) or url == path.as_uri()


def source_data(page: BrowserPage, name: str) -> dict[str, Any]:
    """The data of a named Bokeh data source."""
    script = f"() => {{const d = Bokeh.documents[0].get_model_by_name('{name}').data;"
    return page.evaluate(script + "return d instanceof Map ? Object.fromEntries(d) : d}")


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def picture(page: BrowserPage, kind: str) -> Image.Image:
    """One of the pictures in ``KINDS``."""
    return decode(page.locator(f".{kind} img").get_attribute("src"))


def place_of(page: BrowserPage, number: str, *, grid: int) -> tuple[int, int]:
    """Row and column of the patch that a number in the heat map lies on, from its left to its right."""
    assert page.locator(".heat_map svg").bounding_box() == page.locator(".heat_map img").bounding_box()
    script = """text => {
      const box = text.getBBox(), image = text.ownerSVGElement.viewBox.baseVal
      return [box.x / image.width, (box.x + box.width) / image.width, (box.y + box.height / 2) / image.height]
    }"""
    left, right, y = page.locator(".heat_map").get_by_text(number, exact=True).evaluate(script)
    assert int(left * grid) == int(right * grid), f"{number} is wider than its patch"
    return int(y * grid), int(left * grid)


def present_patches(image: Image.Image) -> NDArray[np.bool_]:
    """Which of the 4 x 4 patches are not gray at their centers."""
    centers = np.asarray(image).reshape(4, 14, 4, 14, 3)[:, 7, :, 7]
    return (abs(centers.astype(int) - 128) >= 8).any(-1)


def move_to_start(page: BrowserPage) -> None:
    while "0 of" not in page.locator("b").first.inner_text()[:4]:
        page.keyboard.press("ArrowLeft")


def flip_of(path: PagePath) -> str:
    return f"{path.flip} of 16 patches {'inserted' if path.mode == 'insertion' else 'deleted'}"


def test_the_page_opens_at_the_flip_of_each_mode(pages: Path, open_page: OpenPage, moxi: list[PagePath]) -> None:
    page, problems = open_page(pages / "moxi.html")
    insertion, deletion = moxi
    assert page.get_by_text(flip_of(insertion)).is_visible()
    before = insertion.probabilities[0].max(0)
    after = insertion.probabilities[insertion.flip].max(0)
    assert page.get_by_text(
        f"The prediction flips at step {insertion.flip}: {int(before.indices)} ({before.values:.2f}) → "
        f"{int(after.indices)} ({after.values:.2f})."
    ).is_visible()
    assert present_patches(picture(page, "seen")).sum() == insertion.flip
    page.get_by_text("deletion", exact=True).click()
    assert page.get_by_text(flip_of(deletion)).is_visible()
    assert (~present_patches(picture(page, "seen"))).sum() == deletion.flip
    assert problems == []


def test_the_photograph_and_the_heat_map_are_side_by_side(
    pages: Path, open_page: OpenPage, moxi: list[PagePath]
) -> None:
    page, _ = open_page(pages / "moxi.html")
    for kind, expected in (("photograph", moxi[0].photograph), ("heat_map", moxi[0].heat_map)):
        pixels = torch.from_numpy(np.array(picture(page, kind))) / 255
        assert float((pixels - expected).abs().mean()) < 0.05  # WebP is not exact
    left, right = (page.locator(f".{kind} img").bounding_box() for kind in ("photograph", "heat_map"))
    assert left["y"] == right["y"] and left["x"] + left["width"] < right["x"]


def test_the_arrow_keys_move_by_one_patch(pages: Path, open_page: OpenPage, moxi: list[PagePath]) -> None:
    page, problems = open_page(pages / "moxi.html")
    at_flip = [source_data(page, name) for name in ("marker", "bars")]
    move_to_start(page)
    page.keyboard.press("ArrowLeft")
    assert page.get_by_text("0 of 16 patches inserted").is_visible()
    assert picture(page, "seen").getextrema() == ((128, 128),) * 3  # all gray
    assert [source_data(page, name) for name in ("marker", "bars")] != at_flip
    screenshot = page.screenshot()
    for _ in range(2):
        page.keyboard.press("ArrowRight")
    assert page.get_by_text("2 of 16 patches inserted").is_visible()
    expected = present_patches(Image.fromarray((moxi[0].images[2] * 255).byte().numpy()))
    assert expected.sum() == 2
    assert (present_patches(picture(page, "seen")) == expected).all()
    assert list(source_data(page, "marker")["step"]) == [2]
    assert page.screenshot() != screenshot
    page.locator(".noUi-handle").press("ArrowRight")  # a slider with the focus moves once, not twice
    assert page.get_by_text("3 of 16 patches inserted").is_visible()
    assert problems == []


@pytest.mark.parametrize("start", ["button", "space"])
def test_the_path_plays(pages: Path, open_page: OpenPage, start: str) -> None:
    page, problems = open_page(pages / "moxi.html")
    move_to_start(page)
    if start == "button":
        page.get_by_text("▶ Play").click()
    else:
        page.keyboard.press(" ")
    page.get_by_text("2 of 16 patches inserted").wait_for()
    page.get_by_text("❚❚ Pause").click()
    assert page.get_by_text("▶ Play").is_visible()
    move_to_start(page)
    page.keyboard.press("ArrowRight")
    assert page.get_by_text("1 of 16 patches inserted").is_visible()
    assert problems == []


def test_the_path_stops_playing_at_its_end(tmp_path: Path, open_page: OpenPage) -> None:
    (tmp_path / "red.html").write_text(path_page([red_path(8, 8)], labels="ab", title=""), encoding="utf-8")
    page, _ = open_page(tmp_path / "red.html")
    page.get_by_text("▶ Play").click()
    page.get_by_text("❚❚ Pause").wait_for()
    page.get_by_text("▶ Play").wait_for()
    assert page.get_by_text("1 of 1 patches deleted").is_visible()


def test_the_menu_switches_between_methods_at_the_same_step(pages: Path, open_page: OpenPage) -> None:
    page, problems = open_page(pages / "methods.html")
    move_to_start(page)
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    moxi = picture(page, "seen")
    page.get_by_role("combobox").select_option("Backwards")
    assert page.get_by_text("4 of 16 patches inserted").is_visible()
    assert picture(page, "seen") != moxi
    assert problems == []


@pytest.mark.parametrize("width", [390, 420, 1280])
def test_the_page_fits_phones_and_desktops(pages: Path, open_page: OpenPage, width: int) -> None:
    page, problems = open_page(pages / "methods.html", width)
    while "16 of" not in page.locator("b").first.inner_text()[:5]:
        page.keyboard.press("ArrowRight")  # at its end, the slider is widest
    assert page.evaluate("document.documentElement.scrollWidth") == width
    boxes = [box.bounding_box() for box in page.locator("img, canvas, .noUi-target, .bk-btn, select").all()]
    assert len(boxes) >= 9
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= width for box in boxes)
    photograph, heat_map, seen = (page.locator(f".{kind} img").bounding_box() for kind in KINDS)
    assert photograph["y"] == heat_map["y"] and photograph["width"] >= 150
    assert len({(round(box["width"]), round(box["height"])) for box in (photograph, heat_map, seen)}) == 1
    assert problems == []


@pytest.mark.parametrize("mode", ["insertion", "deletion"])
def test_the_chosen_patches_are_numbered_up_to_the_step(
    pages: Path, open_page: OpenPage, moxi: list[PagePath], mode: str
) -> None:
    page, problems = open_page(pages / "moxi.html")
    page.get_by_text(mode, exact=True).click()
    (path,) = [path for path in moxi if path.mode == mode]
    for step in (path.flip, path.flip + 1):
        assert page.locator(".heat_map text").all_text_contents() == [str(number) for number in range(1, step + 1)]
        drawn = present_patches(picture(page, "seen"))
        chosen = drawn if mode == "insertion" else ~drawn
        numbered = {place_of(page, str(number), grid=4) for number in range(1, step + 1)}
        assert numbered == set(zip(*chosen.nonzero(), strict=True))
        page.keyboard.press("ArrowRight")
    move_to_start(page)
    assert page.locator(".heat_map text").count() == 0
    assert problems == []


def test_the_numbers_of_a_grid_of_14_x_14_patches_are_readable_on_a_phone(tmp_path: Path, open_page: OpenPage) -> None:
    order = [*range(0, 196, 14), *range(15, 196, 14), 2]
    game = CoalitionGame(
        lambda x: x.flatten(1)[:, :2], torch.rand(1, 3, 224, 224), target=0, feature_mask=patch_mask(224, 16)
    )
    path = follow_path(game, order, "insertion", to_images=lambda values: values.permute(0, 2, 3, 1))
    (tmp_path / "page.html").write_text(path_page([replace(path, flip=None)], labels="ab", title=""), encoding="utf-8")
    page, problems = open_page(tmp_path / "page.html", 390)
    box = page.locator(".heat_map img").bounding_box()
    for step, player in enumerate(order, 1):
        assert place_of(page, str(step), grid=14) == divmod(player, 14)
        number = page.locator(".heat_map").get_by_text(str(step), exact=True)
        assert float(number.get_attribute("font-size")) * box["width"] / 224 >= 9
    assert problems == []


def test_players_that_were_left_out_have_a_dashed_outline(tmp_path: Path, open_page: OpenPage) -> None:
    game, to_images, labels = demo_game()
    for left_out in ([], [5]):
        path = follow_path(game, [2, 7], "insertion", to_images=to_images, left_out=left_out)
        (tmp_path / "page.html").write_text(path_page([path], labels=labels, title=""), encoding="utf-8")
        page, problems = open_page(tmp_path / "page.html")
        caption = page.locator(".heat_map figcaption").inner_text()
        assert ("dashed" in caption) == bool(left_out)
        if left_out:
            # Player 5 is in row 1 and column 1 of a grid of 4 x 4.
            box, image = (page.locator(f".heat_map {name}").bounding_box() for name in ("path", "img"))
            side = image["width"] / 4
            # The box of a line includes its width.
            assert (box["x"] - image["x"], box["y"] - image["y"]) == pytest.approx((side, side), abs=4)
            assert (box["width"], box["height"]) == pytest.approx((side, side), abs=8)
        assert problems == []


def red_path(height: int, width: int) -> PagePath:
    red = torch.tensor([1.0, 0, 0]).expand(2, height, width, 3)
    return PagePath(
        method="MoXI",
        mode="deletion",
        photograph=red[0],
        heat_map=red[0],
        places=torch.tensor([[0.0, 0.0, (height * width) ** 0.5]]),
        left_out=torch.empty(0, 2, 2),
        images=red,
        probabilities=torch.tensor([[0.6, 0.4]] * 2),
        predictions=torch.tensor([0, 0]),
        target=0,
        n_players=1,
        flip=None,
    )


@pytest.mark.parametrize("size", [(32, 32), (20, 40), (40, 20)])
def test_the_pictures_have_the_aspect_ratio_of_the_image(
    tmp_path: Path, open_page: OpenPage, size: tuple[int, int]
) -> None:
    (tmp_path / "red.html").write_text(path_page([red_path(*size)], labels="ab", title=""), encoding="utf-8")
    page, problems = open_page(tmp_path / "red.html")
    boxes = [image.bounding_box() for image in page.locator("img").all()]
    assert len(boxes) == 3
    for box in boxes:
        assert box["height"] == pytest.approx(box["width"] * size[0] / size[1], abs=2)
    assert problems == []


def test_labels_with_markup_or_equal_names_are_shown_as_distinct_text(tmp_path: Path, open_page: OpenPage) -> None:
    def to_images(values: Tensor) -> Tensor:
        return values.permute(0, 2, 3, 1).sigmoid()

    game = CoalitionGame(zoo.token_model("vit"), torch.randn(1, 3, 32, 32), target=1)
    path = follow_path(game, [0, 1], "insertion", to_images=to_images)
    labels = ["<script>alert(1)</script>", "crane", "crane", "a" * 60, "a" * 61]
    (tmp_path / "page.html").write_text(path_page([path], labels=labels, title="<b>bold</b> & plain"), encoding="utf-8")
    page, problems = open_page(tmp_path / "page.html")
    assert page.get_by_text("<b>bold</b> & plain").is_visible()
    # Bokeh draws labels as text on a canvas, so they are not escaped.
    names = source_data(page, "bars")["label"]
    assert sorted(name[:6] for name in names) == ["<scrip", "aaaaaa", "aaaaaa", "crane ", "crane "]
    assert len(set(names)) == 5
    assert problems == []


def test_a_class_of_a_single_logit_may_be_absent(tmp_path: Path, open_page: OpenPage) -> None:
    probabilities, predictions = torch.tensor([[0.9], [0.2]]), torch.tensor([0, -1])
    path = replace(red_path(8, 8), probabilities=probabilities, predictions=predictions, flip=1)
    (tmp_path / "page.html").write_text(path_page([path], labels=["<cat>"], title=""), encoding="utf-8")
    page, _ = open_page(tmp_path / "page.html")
    assert page.get_by_text("The prediction flips at step 1: <cat> (0.90) → not <cat> (0.80).").is_visible()


def test_a_page_needs_a_path() -> None:
    with pytest.raises(ValueError, match="paths is empty; pass at least one path"):
        path_page([], labels=[], title="")


def test_a_page_without_bokeh_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "bokeh" or name == "captum_moxi.page.layout":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bokeh", None)
    with pytest.raises(ImportError, match=r"path_page requires Bokeh; run pip install 'captum-moxi\[html\]'"):
        path_page([], labels=[], title="")
