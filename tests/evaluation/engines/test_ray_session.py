"""What other processes can reach while Ray runs on this machine."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

import pytest

from captum_moxi.demo import FOLDER
from captum_moxi.evaluation import store
from captum_moxi.evaluation.engines import RayEngine, Resources, ray_session
from captum_moxi.evaluation.engines.ray_session import private_environment, run_in_private_session
from captum_moxi.evaluation.evaluator import Evaluator
from captum_moxi.evaluation.settings import Settings

if importlib.util.find_spec("psutil"):
    import psutil

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="requires Ray")
needs_psutil = pytest.mark.skipif(importlib.util.find_spec("psutil") is None, reason="requires psutil")
# Runs a function in the cluster at an address.
ATTACK = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print(ray.get(ray.remote(num_cpus=0)(lambda: "ran").remote()))
"""
SECONDS = 120
# Modules that a session or its workers import.
IMPORTED = ["captum", "datasets", "secrets", "transformers"]


def start_run(pictures: Path, folder: Path, *, workers: int = 1) -> Iterator[int]:
    """Starts a run that ends only when it is closed, because it explains the same image again and again."""
    settings = Settings(str(FOLDER / "model"), str(pictures), grid=2, methods=["random"])
    evaluator = Evaluator.load(settings, device="cpu", limit=1)
    store.open_run(folder, settings.to_dict())
    return RayEngine().run(evaluator, folder, [[0]] * 10_000, resources=Resources("cpu", workers=workers))


def attack(address: str, environment: dict[str, str], home: Path) -> "subprocess.Popen[str]":
    """Starts another process that runs a function in the cluster."""
    return subprocess.Popen(
        [sys.executable, "-c", ATTACK, address],
        env=os.environ | private_environment() | {"HOME": str(home)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def output(process: "subprocess.Popen[str]") -> str:
    try:
        return process.communicate(timeout=SECONDS)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0]


def ray_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("RAY_")}


def is_loopback(address: str) -> bool:
    ip: IPv4Address | IPv6Address = ip_address(address)
    mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None
    return (mapped or ip).is_loopback


def listening(process: Any) -> list[tuple[str, int]]:
    return [tuple(c.laddr) for c in process.net_connections("inet") if c.status == psutil.CONN_LISTEN]


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists once a module of the working directory was imported."""
    folder, imported = tmp_path / "trap", tmp_path / "imported"
    folder.mkdir()
    for name in IMPORTED:
        (folder / f"{name}.py").write_text(f"open({str(imported)!r}, 'w').close()\n")
    monkeypatch.chdir(folder)
    return imported


def test_a_session_imports_nothing_from_the_working_directory(trap: Path) -> None:
    with pytest.raises(RuntimeError, match="the process that runs Ray ended with code 1"):
        list(run_in_private_session("{}"))
    assert not trap.exists()


def test_a_session_that_ends_before_it_reads_its_job_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_session, "START", "raise SystemExit('out of memory')")
    # The job is larger than the buffer of a pipe.
    with pytest.raises(RuntimeError, match=r"the process that runs Ray ended with code 1 \(out of memory\)"):
        list(run_in_private_session("x" * 1_000_000))


@needs_ray
@needs_psutil
@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads sockets and environments of other processes")
def test_ray_on_this_machine_serves_only_the_run(
    pictures: Path, tmp_path: Path, trap: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    environment, before = ray_variables(), set(psutil.Process().children(recursive=True))
    run = start_run(pictures, tmp_path / "run")
    assert next(run) == 1
    assert not trap.exists()
    processes = [child for child in psutil.Process().children(recursive=True) if child not in before]
    driver = next(process for process in processes if process.ppid() == os.getpid())
    token, folder = driver.environ()["RAY_AUTH_TOKEN"], Path(driver.cmdline()[-1])

    sockets = {process.name(): listening(process) for process in processes}
    assert sockets["gcs_server"] and sockets["raylet"]
    assert all(is_loopback(address) for addresses in sockets.values() for address, _ in addresses), sockets
    assert folder.stat().st_mode & 0o077 == 0
    assert not any(token in argument for process in processes for argument in process.cmdline())
    assert not any(token.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file())
    assert ray_variables() == environment

    address = f"127.0.0.1:{sockets['gcs_server'][0][1]}"
    outsiders = [
        attack(address, variables, tmp_path)
        for variables in (
            {"RAY_AUTH_MODE": "disabled"},
            {},  # a token, but another one
        )
    ]
    # The attack works, so its failure without the token means something.
    assert "ran" in output(attack(address, {"RAY_AUTH_TOKEN": token}, tmp_path))
    for outsider in outsiders:
        assert "ran" not in output(outsider)
        assert outsider.returncode != 0

    run.close()
    _, alive = psutil.wait_procs(processes, timeout=SECONDS)
    assert not alive
    assert not folder.exists()


@needs_ray
@pytest.mark.slow
def test_a_private_session_reports_errors_of_its_job(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    run = start_run(pictures, tmp_path / "run", workers=10**6)
    with pytest.raises(ValueError, match="workers is 1000000 and cpus is 1, but the Ray cluster has only"):
        next(run)


def test_every_session_has_a_token_of_its_own() -> None:
    first, second = private_environment(), private_environment()
    assert first["RAY_AUTH_MODE"] == "token"
    assert len(bytes.fromhex(first["RAY_AUTH_TOKEN"])) >= 32
    assert first["RAY_AUTH_TOKEN"] != second["RAY_AUTH_TOKEN"]
