"""The app in a browser. Skipped without Gradio, Playwright or Chromium."""

import json
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from browsers import chromium

from captum_moxi.demo import GRID, demo_classifier, demo_images
from captum_moxi.demo import NAME as DEMO
from captum_moxi.explanation import ExplainSettings, explain

pytest.importorskip("gradio", reason="Gradio is not installed; run pip install '.[app]'")
pytest.importorskip("bokeh", reason="Bokeh is not installed; run pip install '.[html]'")

from captum_moxi.app import QUESTIONS, AppModels, create_app, serve
from captum_moxi.app.interface import MOST_SEARCHES, MOST_WAITING
from captum_moxi.app.requests import MOST_STEPS

pytestmark = pytest.mark.slow
FRAME = "iframe[title=explanation]"
SETTINGS = ExplainSettings(modes="insertion", min_confidence=0.5, minimal=True, n_steps=MOST_STEPS, grid=GRID)


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    app = create_app(AppModels(device="cpu"))
    yield serve(app, host="127.0.0.1")
    app.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    page = open_app(browser, address)
    yield page
    page.close()


def open_app(browser: Any, address: str) -> Any:
    page = browser.new_page(viewport={"width": 1280, "height": 1400})
    page.set_default_timeout(60_000)
    page.goto(address)
    page.get_by_role("button", name="Explain", exact=True).wait_for()
    return page


def ask(page: Any, *modes: str) -> None:
    """Choose the question that searches in these modes answer."""
    [question] = [question for question, searched in QUESTIONS.items() if searched == modes]
    page.get_by_label(question).check()


def upload(page: Any, path: Path) -> None:
    page.set_input_files("input[type=file]", str(path))
    page.get_by_label("Remove Image").wait_for()


def press_explain(page: Any) -> None:
    page.get_by_role("button", name="Explain", exact=True).click()


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """The files of two embedded images with different groups."""
    paths = []
    for image in demo_images()[:2]:
        paths.append(tmp_path / image.name)
        image.image.save(paths[-1])
    return paths


def expected(index: int, settings: ExplainSettings = SETTINGS) -> dict[str, Any]:
    """What the library finds for an embedded image."""
    image = demo_images()[index]
    explanation = explain(demo_classifier("cpu"), image.image, name=image.name, settings=settings)
    return json.loads(json.dumps(explanation.to_dict()))


def downloaded(page: Any) -> dict[str, Any]:
    with page.expect_download() as download:
        page.get_by_text("Download the selection").click()
    return json.loads(Path(download.value.path()).read_text())


def assert_is_expected(found: dict[str, Any], index: int, settings: ExplainSettings = SETTINGS) -> None:
    """The app has found what the library finds. Its threads may round differently."""
    reference, mode = expected(index, settings), str(settings.modes)
    assert found.keys() == reference.keys()
    assert all(found[name] == reference[name] for name in ("image", "model", "settings", "patches"))
    assert found[mode]["order"] == reference[mode]["order"]
    assert found[mode]["confidences"][0] == pytest.approx(reference[mode]["confidences"][0], abs=1e-5)


def test_upload_run_slider_and_download(page: Any, pictures: list[Path]) -> None:
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    upload(page, pictures[0])
    press_explain(page)
    frame = page.frame_locator(FRAME)
    handle = frame.locator(".noUi-handle")
    handle.wait_for()
    n_patches = len(expected(0)["insertion"]["order"][0])
    frame.get_by_text(f"{n_patches} of 4 patches inserted").wait_for()
    handle.focus()
    page.keyboard.press("ArrowLeft")
    frame.get_by_text(f"{n_patches - 1} of 4 patches inserted").wait_for()
    assert_is_expected(downloaded(page), 0)
    outside = [url for url in requests if not url.startswith(("http://127.0.0.1", "data:", "blob:", "about:"))]
    assert not outside


def test_both_questions_can_be_switched(page: Any, pictures: list[Path]) -> None:
    upload(page, pictures[0])
    ask(page, "insertion", "deletion")
    press_explain(page)
    frame = page.frame_locator(FRAME)
    frame.get_by_text("of 4 patches inserted").wait_for()
    frame.get_by_text("deletion", exact=True).click()
    frame.get_by_text("of 4 patches deleted").wait_for()
    assert {"insertion", "deletion"} < downloaded(page).keys()


def test_sufficient_and_necessary_at_once(page: Any, pictures: list[Path]) -> None:
    upload(page, pictures[0])
    ask(page, "symmetric")
    press_explain(page)
    frame = page.frame_locator(FRAME)
    settings = replace(SETTINGS, modes="symmetric")
    n_patches = len(expected(0, settings)["symmetric"]["order"][0])
    # The page contains the path of the group alone, and the path of the image without the group.
    frame.get_by_text(f"{n_patches} of 4 patches inserted").wait_for()
    frame.get_by_text("deletion", exact=True).click()
    frame.get_by_text(f"{n_patches} of 4 patches deleted").wait_for()
    assert_is_expected(downloaded(page), 0, settings)


def test_a_broken_file_is_reported_and_the_app_goes_on(page: Any, pictures: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(pictures[0].read_bytes()[:100])
    page.set_input_files("input[type=file]", str(broken))
    page.get_by_label("Remove Image").wait_for()
    press_explain(page)
    page.get_by_text("the image cannot be read and may be truncated").wait_for()
    page.get_by_label("Remove Image").click()
    upload(page, pictures[0])
    press_explain(page)
    page.frame_locator(FRAME).get_by_text("patches inserted").first.wait_for()


class MeetingModels(AppModels):
    """The embedded model, which lets no search continue until ``barrier`` has as many searches as it waits for."""

    def __init__(self, barrier: threading.Barrier) -> None:
        super().__init__(device="cpu")
        self._met = threading.local()
        self._barrier = barrier
        super().get(DEMO).model.register_forward_pre_hook(self._meet)

    def get(self, name: str, **options: Any) -> Any:
        self._met.value = False
        return super().get(name, **options)

    def _meet(self, *_: object) -> None:
        if not self._met.value:
            self._met.value = True
            self._barrier.wait(timeout=300)


def test_two_users_at_once_get_their_own_results(browser: Any, pictures: list[Path]) -> None:
    app = create_app(MeetingModels(threading.Barrier(len(pictures))))
    address = serve(app, host="127.0.0.1")
    users = [open_app(browser, address) for _ in pictures]
    for user, picture in zip(users, pictures, strict=True):
        upload(user, picture)
    for user in users:
        press_explain(user)
    for index, user in enumerate(users):
        user.frame_locator(FRAME).get_by_text("patches inserted").first.wait_for()
        assert_is_expected(downloaded(user), index)
        user.close()
    app.close()


def test_an_error_and_a_new_photograph_remove_the_old_result(page: Any, pictures: list[Path]) -> None:
    upload(page, pictures[0])
    press_explain(page)
    page.locator(FRAME).wait_for()
    page.get_by_label("Class", exact=True).fill("no such digit")
    press_explain(page)
    page.get_by_text("is not one of the model's 31 classes").wait_for()
    page.locator(FRAME).wait_for(state="detached")
    page.get_by_label("Class", exact=True).fill("")
    press_explain(page)
    page.locator(FRAME).wait_for()
    page.get_by_label("Remove Image").click()
    page.locator(FRAME).wait_for(state="detached")


def test_a_photograph_that_is_replaced_during_its_search_has_no_result(browser: Any, pictures: list[Path]) -> None:
    barrier = threading.Barrier(2)
    app = create_app(MeetingModels(barrier))
    page = open_app(browser, serve(app, host="127.0.0.1"))
    upload(page, pictures[0])
    press_explain(page)
    page.get_by_label("Remove Image").click()
    upload(page, pictures[1])
    # The last event of a search receives two photographs.
    with page.expect_response(lambda response: len((response.request.post_data_json or {}).get("data", [])) == 2):
        barrier.wait(timeout=300)
    page.locator(FRAME).wait_for(state="detached")
    page.close()
    app.close()


def test_messages_are_shown_as_text_without_folders(page: Any, pictures: list[Path]) -> None:
    upload(page, pictures[0])
    page.get_by_label("Class", exact=True).fill("<b id=injected>/srv/uploads/cat.jpg</b>")
    press_explain(page)
    page.get_by_text("class '<b id=injected>cat.jpg</b>' is not one of").wait_for()
    assert page.locator("#injected").count() == 0


def uploaded(client: Any, picture: Path) -> list[object]:
    """Upload a photograph, and return the inputs of a request for its explanation."""
    [path] = client.post("gradio_api/upload", files={"files": picture.open("rb")}).json()
    return [{"path": path, "meta": {"_type": "gradio.FileData"}}, DEMO, next(iter(QUESTIONS)), "", "", 0.5, True]


def test_results_stay_in_files_that_gradio_deletes(
    pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    httpx = pytest.importorskip("httpx")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    app = create_app(AppModels(device="cpu"))
    with httpx.Client(base_url=serve(app, host="127.0.0.1"), timeout=300, trust_env=False) as client:
        inputs = uploaded(client, pictures[0])
        event = client.post("gradio_api/call/explain", json={"data": inputs}).json()["event_id"]
        assert "event: complete" in client.get(f"gradio_api/call/explain/{event}").text
    [file] = tmp_path.rglob("*.json")
    assert file.is_relative_to(tmp_path / "gradio")
    app.close()
    assert not file.exists()


def test_requests_are_refused_while_many_wait(pictures: list[Path]) -> None:
    httpx = pytest.importorskip("httpx")
    # More searches than can run at the same time. They all wait until the barrier is aborted, and then fail.
    barrier = threading.Barrier(MOST_SEARCHES + 1)
    app = create_app(MeetingModels(barrier))
    with httpx.Client(base_url=serve(app, host="127.0.0.1"), timeout=300, trust_env=False) as client:
        inputs = uploaded(client, pictures[0])
        answers = [
            client.post("gradio_api/call/explain", json={"data": inputs})
            for _ in range(MOST_WAITING + MOST_SEARCHES + 1)
        ]
        barrier.abort()
    assert [answer.is_success for answer in answers[:MOST_WAITING]] == [True] * MOST_WAITING
    assert "Queue is full" in answers[-1].text
    app.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_the_address_can_be_opened_where_a_proxy_is_set(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    httpx = pytest.importorskip("httpx")
    if ":" in host:
        try:
            socket.create_server((host, 0), family=socket.AF_INET6).close()
        except OSError as error:
            pytest.skip(f"this machine has no IPv6 ({error})")
    # Nothing listens on port 9.
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    environment = dict(os.environ)
    app = create_app(AppModels(device="cpu"))
    address = serve(app, host=host)
    assert dict(os.environ) == environment
    assert httpx.get(address, trust_env=False).status_code == 200
    app.close()


def test_files_of_the_server_are_not_explained(address: str, pictures: list[Path]) -> None:
    httpx = pytest.importorskip("httpx")
    inputs = [{"path": str(pictures[0])}, DEMO, next(iter(QUESTIONS)), "", "", 0.5, True]
    with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
        event = client.post("gradio_api/call/explain", json={"data": inputs}).json()["event_id"]
        events = client.get(f"gradio_api/call/explain/{event}").text
    assert "event: error" in events
    assert "event: complete" not in events
