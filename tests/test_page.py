"""The page: what it is told, and what it does in a browser (Debian's or another Chromium; skipped without one)."""

import base64
import io
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zoo
from click.testing import CliRunner
from PIL import Image

from captum_moxi import BaselineRemoval, CoalitionGame, patch_mask
from captum_moxi.cli import main
from captum_moxi.page import Path as PagePath
from captum_moxi.page import follow_path, path_page

pytest.importorskip("bokeh", reason="Bokeh is not installed; pip install '.[html]'")
CHROMIUM = os.environ.get("CHROMIUM") or next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


def to_images(values: torch.Tensor) -> torch.Tensor:
    return values.permute(0, 2, 3, 1).sigmoid()


@pytest.mark.parametrize("mode", ["insertion", "deletion"])
def test_a_path_is_what_the_model_sees_and_says(mode: str) -> None:
    model = zoo.token_model("vit")
    x = torch.randn(2, 3, 32, 32)
    game = CoalitionGame(model, x, [1, 3])
    path = follow_path(game, [5, 0, 9], mode, to_images, example=1)
    assert (path.mode, path.target, path.players) == (mode, 3, 16)
    for k, group in enumerate(([], [5], [5, 0], [5, 0, 9])):
        present = torch.tensor([(player in group) == (mode == "insertion") for player in range(16)])
        outcome = game.outcome(present[None], torch.tensor([1]))
        assert path.probabilities[k, 3] == pytest.approx(float(outcome.confidences), abs=1e-6)
        assert path.probabilities[k].sum() == pytest.approx(1, abs=1e-5)
        shown = path.images[k].reshape(4, 8, 4, 8, 3).permute(0, 2, 1, 3, 4).reshape(16, -1)
        whole = to_images(x)[1].reshape(4, 8, 4, 8, 3).permute(0, 2, 1, 3, 4).reshape(16, -1)
        assert torch.equal(shown[present], whole[present])
        assert (shown[~present] == 0.5).all()


def test_a_filled_path_shows_the_fill() -> None:
    x = torch.randn(1, 3, 32, 32)
    game = CoalitionGame(
        zoo.resnet().eval(), x, 1, removal=BaselineRemoval("mean"), feature_mask=patch_mask(32, grid=2)
    )
    path = follow_path(game, [3], "deletion", to_images)
    assert torch.equal(path.images[0], to_images(x)[0])
    wanted = x.mean((2, 3), keepdim=True).expand_as(x)[:, :, 16:, 16:]
    torch.testing.assert_close(path.images[1][16:, 16:], to_images(wanted)[0])
    assert torch.equal(path.images[1][:16], to_images(x)[0][:16])


def test_the_flip_of_a_path() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([torch.full((len(x),), 1.5), x.flatten(1).sum(1)], 1)

    game = CoalitionGame(model, torch.ones(1, 1, 2, 2), 1)
    assert follow_path(game, [0, 1, 2], "insertion", to_images).flip == 2
    assert follow_path(game, [0, 1, 2], "deletion", to_images).flip == 3
    assert follow_path(game, [0], "insertion", to_images).flip is None
    assert follow_path(game, [0, 1, 2], "insertion", to_images, min_confidence=0.7).flip == 3
    with pytest.raises(ValueError, match="a game of one input of images"):
        follow_path(CoalitionGame(lambda x: x, torch.ones(1, 4), 1), [0], "insertion", to_images)
    with pytest.raises(ValueError, match="paths is empty"):
        path_page([], [], "")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the demo: one that explains, one that compares."""
    folder = tmp_path_factory.mktemp("pages")
    options = {"explain": ["--grid", "4"], "compare": ["--methods", "moxi,random", "--n-steps", "6"]}
    for command, more in options.items():
        result = CliRunner().invoke(main, [command, "--html", "--out", str(folder / command), *more])
        assert result.exit_code == 0, result.output
        assert len(list((folder / command).glob("*.html"))) == 4
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed; pip install '.[test]'")
    if CHROMIUM is None:
        pytest.skip("no Chromium; install one (Debian: apt install chromium) or name it in CHROMIUM")
    with api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def opened(browser: Any) -> Any:
    said: list[str] = []

    def open_page(path: Path) -> tuple[Any, list[str]]:
        page = browser.new_page(viewport={"width": 1320, "height": 700})
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if not local(request.url, path) else None)
        page.goto(path.as_uri())
        page.wait_for_function("window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
        return page, said

    return open_page


def local(url: str, path: Path) -> bool:
    return url.startswith(("data:", "blob:")) or url == path.as_uri()


def data(page: Any, name: str) -> dict[str, Any]:
    script = f"() => {{const d = Bokeh.documents[0].get_model_by_name('{name}').data;"
    return page.evaluate(script + "return d instanceof Map ? Object.fromEntries(d) : d}")


def pixels(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB")


def test_the_slider_moves_picture_marker_and_classes(pages: Path, opened: Any) -> None:
    page, said = opened(pages / "explain" / "6-4-6-3.html")
    assert page.get_by_text("0 of 16 patches inserted").is_visible()
    before, marker, bars = data(page, "picture")["url"][0], data(page, "marker"), data(page, "bars")
    assert pixels(before).getextrema() == ((128, 128),) * 3  # nothing but grey
    assert len(bars["label"]) == 5
    shot = page.screenshot()
    handle = page.locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")
    handle.press("ArrowRight")
    assert page.get_by_text("2 of 16 patches inserted").is_visible()
    after = data(page, "picture")["url"][0]
    assert after != before
    colours = np.asarray(pixels(after)).reshape(4, 14, 4, 14, 3)[:, 7, :, 7]
    assert (abs(colours.astype(int) - 128) < 8).all(-1).sum() == 14  # two of the sixteen patches are there
    assert list(data(page, "marker")["k"]) == [2]
    assert data(page, "marker") != marker
    assert data(page, "bars") != bars
    assert page.screenshot() != shot
    assert said == []


@pytest.mark.parametrize("size", [(32, 32), (20, 40), (40, 20)])
def test_the_picture_has_the_shape_of_the_image(tmp_path: Path, opened: Any, size: tuple[int, int]) -> None:
    red = torch.tensor([1.0, 0, 0]).expand(2, *size, 3)
    probabilities = torch.tensor([[0.6, 0.4]] * 2)
    (tmp_path / "red.html").write_text(
        path_page([PagePath("MoXI", "deletion", red, probabilities, 0, 1, None)], "ab", "")
    )
    page, said = opened(tmp_path / "red.html")
    shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    rows, columns = ((abs(shot - [255, 0, 0]) < 3).all(-1).any(axis).sum() for axis in (1, 0))
    # to a pixel at each edge
    assert rows > 100 and abs(rows * size[1] / size[0] - columns) <= 4
    assert said == []


def test_it_switches_between_insertion_and_deletion(pages: Path, opened: Any) -> None:
    page, said = opened(pages / "explain" / "6-4-6-3.html")
    empty = data(page, "picture")["url"][0]
    page.get_by_text("deletion", exact=True).click()
    assert page.get_by_text("0 of 16 patches deleted").is_visible()
    assert data(page, "picture")["url"][0] != empty
    whole = pixels(data(page, "picture")["url"][0])
    assert whole.size == (56, 56)
    assert whole.getextrema()[0][1] > 200  # digits
    page.locator(".noUi-handle").press("ArrowRight")
    assert page.get_by_text("1 of 16 patches deleted").is_visible()
    assert said == []


def test_it_switches_between_methods(pages: Path, opened: Any) -> None:
    page, said = opened(pages / "compare" / "6-4-6-3.html")
    for _ in range(4):
        page.locator(".noUi-handle").press("ArrowRight")
    moxi = data(page, "picture")["url"][0]
    page.get_by_role("combobox").select_option("Random")
    assert page.get_by_text("4 of 16 patches inserted").is_visible()
    assert data(page, "picture")["url"][0] != moxi
    page.get_by_text("deletion", exact=True).click()
    assert page.get_by_text("4 of 16 patches deleted").is_visible()
    assert said == []


def test_labels_that_are_markup_or_alike(tmp_path: Path, opened: Any) -> None:
    game = CoalitionGame(zoo.token_model("vit"), torch.randn(1, 3, 32, 32), 1)
    path = follow_path(game, [0, 1], "insertion", to_images)
    labels = ["<script>alert(1)</script>", "crane", "crane", "a" * 60, "a" * 61]
    (tmp_path / "page.html").write_text(path_page([path], labels, "<b>bold</b> & plain"), encoding="utf-8")
    page, said = opened(tmp_path / "page.html")
    assert page.get_by_text("<b>bold</b> & plain").is_visible()
    # drawn as text on a canvas, not as markup
    assert sorted(label[:6] for label in data(page, "bars")["label"]) == [
        "<scrip",
        "aaaaaa",
        "aaaaaa",
        "crane ",
        "crane ",
    ]
    assert len(set(data(page, "bars")["label"])) == 5
    assert said == []


def test_without_bokeh_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("captum_moxi.cli.find_spec", lambda name: None)
    for command in ("explain", "compare"):
        result = CliRunner().invoke(main, [command, "--html", "--out", str(tmp_path)])
        assert result.exit_code == 2
        assert "--html needs Bokeh; pip install 'captum-moxi[html]'" in result.output
