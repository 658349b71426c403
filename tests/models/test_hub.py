"""Models are found in folders, on a hub, or in its cache. The hub is a server of the test."""

import socketserver
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from captum_moxi.models import hub, load

COMMIT = "0" * 40
FOUND = {"X-Repo-Commit": COMMIT, "ETag": '"a"', "Content-Length": "2"}


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def use_hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Makes an address the hub."""

    def use(address: str) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)

    return use


@pytest.fixture
def serve(use_hub: Callable[[str], None]) -> Iterator[Callable[[int, dict[str, str]], list[str]]]:
    """Starts a hub that gives one answer to all requests, and returns the list of requests."""
    servers = []

    def start(status: int, headers: dict[str, str]) -> list[str]:
        requests: list[str] = []

        class Answer(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                requests.append(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        server = HTTPServer(("127.0.0.1", 0), Answer)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        use_hub(f"http://127.0.0.1:{server.server_port}")
        return requests

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def put_into_cache(cache: Path, name: str) -> None:
    """Writes what the hub's client has cached after it downloaded config.json."""
    folder = cache / f"models--{name.replace('/', '--')}"
    for path, text in ((folder / "refs" / "main", COMMIT), (folder / "snapshots" / COMMIT / "config.json", "{}")):
        path.parent.mkdir(parents=True)
        path.write_text(text)


def test_a_folder_is_local(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert hub.is_local(tmp_path)


@pytest.mark.parametrize("name", ["./model", "/x/y", "C:\\x", "a/b/c", "~/model", "", "x" * 300, "\udcff"])
def test_a_missing_folder_is_not_searched_on_the_hub(
    name: str, serve, monkeypatch: pytest.MonkeyPatch, tmp_path
) -> None:
    requests = serve(200, FOUND)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"is not a folder, and not a valid hub name|contains no config\.json"):
        load(name)
    assert not requests


def test_a_file_is_not_a_model() -> None:
    with pytest.raises(ValueError, match="is a file; pass a folder"):
        load(__file__)


def test_a_model_on_the_hub_is_found(serve) -> None:
    requests = serve(200, FOUND)
    assert not hub.is_local("owner/model")
    assert requests == ["/owner/model/resolve/main/config.json"]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (404, "RepoNotFound", "is not a folder, and the hub http://127.* has no public model of this name"),
        (403, "GatedRepo", "grants access only after you accept its terms"),
        (404, "EntryNotFound", r"has no config\.json on the hub http://127"),
        (500, "", "could not be reached"),
    ],
)
def test_what_the_hub_answers_is_reported_after_one_request(serve, status: int, code: str, message: str) -> None:
    requests = serve(status, {"X-Error-Code": code, "X-Repo-Commit": COMMIT})
    with pytest.raises(ValueError, match=message):
        load("owner/model")
    assert len(requests) == 1


def test_a_hub_that_cannot_be_reached_is_reported_unless_the_model_is_cached(use_hub, empty_cache: Path) -> None:
    use_hub("http://127.0.0.1:9")
    with pytest.raises(
        ValueError, match=r"is not a folder, is not in the hub's cache, and the hub http://127\.0\.0\.1:9 could"
    ):
        load("owner/model")
    put_into_cache(empty_cache, "owner/model")
    assert hub.is_local("owner/model")


@pytest.fixture
def silent_hub(use_hub: Callable[[str], None]) -> Iterator[list[bytes]]:
    """A hub that accepts requests and does not answer them before the test ends. The list contains the requests."""
    requests: list[bytes] = []
    is_over = threading.Event()

    class Silence(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            requests.append(self.request.recv(4096))
            # A client without a timeout finds the model in the end.
            is_over.wait(5)
            self.request.sendall(b"HTTP/1.1 200 OK\r\nX-Repo-Commit: 0\r\nETag: 0\r\nContent-Length: 2\r\n\r\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silence)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    use_hub(f"http://127.0.0.1:{server.server_address[1]}")
    yield requests
    is_over.set()
    server.shutdown()
    server.server_close()


def test_a_hub_that_does_not_answer_is_reported_unless_the_model_is_cached(
    silent_hub: list[bytes], empty_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(ValueError, match=r"is not in the hub's cache, and the hub http://127.* could not be reached"):
        hub.is_local("owner/model")
    assert len(silent_hub) == 1
    put_into_cache(empty_cache, "owner/model")
    assert hub.is_local("owner/model")


def test_offline_mode_uses_only_the_cache(serve, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = serve(200, FOUND)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    # The client checks the mode when it creates a session.
    huggingface_hub.close_session()
    try:
        with pytest.raises(ValueError, match=r"could not be reached \(offline mode is set\)"):
            load("owner/model")
        put_into_cache(empty_cache, "owner/model")
        assert hub.is_local("owner/model")
        assert not requests
    finally:
        huggingface_hub.close_session()
