"""The page in a browser. Skipped without Bokeh, Playwright or Chromium."""

import base64
import io
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from PIL import Image
from torch import Tensor

from captum_moxi import CoalitionGame, MoXIDeletion, MoXIInsertion, patch_mask
from captum_moxi.demo import demo_classifier, demo_images
from captum_moxi.page import PagePath, follow_path, path_page

pytest.importorskip("bokeh", reason="Bokeh is not installed; run pip install '.[html]'")
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)

# Playwright is optional, so its page has no type here.
BrowserPage = Any
# Opens a page, and returns it with a list of everything that must not happen: errors, warnings, requests.
OpenPage = Callable[[Path], tuple[BrowserPage, list[str]]]


def demo_game() -> tuple[CoalitionGame, Callable[[Tensor], Tensor], list[str]]:
    """A game with 4 x 4 players on the demo image 6-4-6-3, its conversion to images, and the class names."""
    classifier = demo_classifier("cpu")
    image = next(image for name, image, _ in demo_images() if name == "6-4-6-3.png")
    x = classifier.preprocess(image)
    target = int(classifier.model(x).logits.argmax())
    game = CoalitionGame(classifier.model, x, target=target, feature_mask=patch_mask(tuple(x.shape[2:]), grid=4))
    return game, classifier.to_images, classifier.labels


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a page of one method, moxi.html, and a page of two methods, methods.html."""
    folder = tmp_path_factory.mktemp("pages")
    game, to_images, labels = demo_game()
    (x,), target, mask = game.call.inputs, game.targets, patch_mask(56, grid=4)
    moxi = []
    for attribution in (MoXIInsertion(game.call.forward_func), MoXIDeletion(game.call.forward_func)):
        _, selection = attribution.attribute(x, target=target, feature_mask=mask, return_selection=True)
        moxi.append(follow_path(game, selection.order[0].tolist(), selection.mode, to_images=to_images))
    backwards = [
        follow_path(game, list(range(15, -1, -1)), path.mode, to_images=to_images, method="Backwards") for path in moxi
    ]
    for name, paths in (("moxi", moxi), ("methods", moxi + backwards)):
        (folder / f"{name}.html").write_text(path_page(paths, labels=labels, title=name), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed; run pip install '.[test]'")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; install it (Debian: apt install chromium) or set CHROMIUM to its path")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any) -> OpenPage:
    def open_in_browser(path: Path) -> tuple[BrowserPage, list[str]]:
        problems: list[str] = []
        page = browser.new_page(viewport={"width": 1320, "height": 700})
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


def press_right(page: BrowserPage, times: int) -> None:
    handle = page.locator(".noUi-handle")
    handle.focus()
    for _ in range(times):
        handle.press("ArrowRight")


def test_the_slider_updates_picture_marker_and_classes(pages: Path, open_page: OpenPage) -> None:
    page, problems = open_page(pages / "moxi.html")
    assert page.get_by_text("0 of 16 patches inserted").is_visible()
    before, marker, bars = (source_data(page, name) for name in ("picture", "marker", "bars"))
    assert decode(before["url"][0]).getextrema() == ((128, 128),) * 3  # all gray
    assert len(bars["label"]) == 5
    screenshot = page.screenshot()
    press_right(page, 2)
    assert page.get_by_text("2 of 16 patches inserted").is_visible()
    after = source_data(page, "picture")
    assert after != before
    centers = np.asarray(decode(after["url"][0])).reshape(4, 14, 4, 14, 3)[:, 7, :, 7]
    assert (abs(centers.astype(int) - 128) < 8).all(-1).sum() == 14  # two of sixteen patches are present
    assert list(source_data(page, "marker")["step"]) == [2]
    assert source_data(page, "marker") != marker
    assert source_data(page, "bars") != bars
    assert page.screenshot() != screenshot
    assert problems == []


def test_the_buttons_switch_between_insertion_and_deletion(pages: Path, open_page: OpenPage) -> None:
    page, problems = open_page(pages / "moxi.html")
    empty = source_data(page, "picture")["url"][0]
    page.get_by_text("deletion", exact=True).click()
    assert page.get_by_text("0 of 16 patches deleted").is_visible()
    assert source_data(page, "picture")["url"][0] != empty
    whole = decode(source_data(page, "picture")["url"][0])
    assert whole.size == (56, 56)
    assert whole.getextrema()[0][1] > 200  # bright digits
    press_right(page, 1)
    assert page.get_by_text("1 of 16 patches deleted").is_visible()
    assert problems == []


def test_the_menu_switches_between_methods(pages: Path, open_page: OpenPage) -> None:
    page, problems = open_page(pages / "methods.html")
    press_right(page, 4)
    moxi = source_data(page, "picture")["url"][0]
    page.get_by_role("combobox").select_option("Backwards")
    assert page.get_by_text("4 of 16 patches inserted").is_visible()
    assert source_data(page, "picture")["url"][0] != moxi
    page.get_by_text("deletion", exact=True).click()
    assert page.get_by_text("4 of 16 patches deleted").is_visible()
    assert problems == []


@pytest.mark.parametrize("size", [(32, 32), (20, 40), (40, 20)])
def test_the_picture_has_the_aspect_ratio_of_the_image(
    tmp_path: Path, open_page: OpenPage, size: tuple[int, int]
) -> None:
    red = torch.tensor([1.0, 0, 0]).expand(2, *size, 3)
    path = PagePath("MoXI", "deletion", red, torch.tensor([[0.6, 0.4]] * 2), target=0, n_players=1, flip=None)
    (tmp_path / "red.html").write_text(path_page([path], labels="ab", title=""), encoding="utf-8")
    page, problems = open_page(tmp_path / "red.html")
    screenshot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    rows, columns = ((abs(screenshot - [255, 0, 0]) < 3).all(-1).any(axis).sum() for axis in (1, 0))
    # Each edge is accurate to one pixel.
    assert rows > 100
    assert abs(rows * size[1] / size[0] - columns) <= 4
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
