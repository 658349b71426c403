"""Ray on this machine, closed to other processes.

Ray runs code for every process that reaches it. By default, it listens on all network interfaces and stores its token
in the home directory. A private session listens only on the loopback interface, requires a random token that is new in
each session, and keeps its sockets and logs in a folder that no other user can open. Ray reads these settings from the
environment and from caches that cannot be changed later. The session therefore has a process of its own, which also
leaves the environment of this process unchanged.
"""

import _thread
import json
import os
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

TOKEN_BYTES = 32
# Time in which a session that is interrupted can shut down by itself.
GRACE_SECONDS = 10
# Errors that the session reports to the process that started it, by name.
REPORTED_ERRORS: dict[str, type[Exception]] = {error.__name__: error for error in (ValueError, RuntimeError, OSError)}
START = "from captum_moxi.evaluation.engines.ray_session import serve; serve()"


def run_in_private_session(job: str) -> Iterator[int]:
    """Run a job on workers of a new private session, which ends with the job or with this process.

    Args:
        job (str): The job, as JSON in one line.

    Yields:
        int: Number of images in each finished batch.

    Raises:
        ValueError: If this machine does not have the resources of the job.
        RuntimeError: If a worker or the session fails.
        OSError: If the session cannot be started.
    """
    # The paths of sockets must be short, so the folder is not in a long TMPDIR. Only this user can open it.
    parent = "/tmp" if os.name == "posix" else None
    error: Exception | None = None
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir=parent, ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryFile("w+", errors="replace") as log,
        subprocess.Popen(
            # Without -P, the process imports modules from the working directory.
            [sys.executable, "-P", "-c", START, folder],
            env=os.environ | private_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            # If the process ends before it reads the job, the reason is reported below.
            with suppress(BrokenPipeError):
                process.stdin.write(f"{job}\n")
                process.stdin.flush()
            for line in process.stdout:
                message = json.loads(line)
                if "images" in message:
                    yield message["images"]
                else:
                    error = REPORTED_ERRORS[message["type"]](message["error"])
            process.wait()
        finally:
            # The end of its input tells the session that nobody waits for it any more.
            with suppress(BrokenPipeError):
                process.stdin.close()
        if error is None and process.returncode:
            log.seek(0)
            last_line = (log.read().strip().splitlines() or ["no reason"])[-1]
            error = RuntimeError(f"the process that runs Ray ended with code {process.returncode} ({last_line})")
    if error is not None:
        raise error


def private_environment() -> dict[str, str]:
    """Return the environment variables of a new private session, with a new token."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(TOKEN_BYTES),
        # Ray listens only on the loopback interface if it must not form clusters of several machines. The variable also
        # has this effect on Linux.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    }


def serve() -> None:
    """Run the job of the standard input in a new Ray session, and write its progress to the standard output.

    The only argument of the process is the folder of the session.
    """
    folder = sys.argv[1]
    # The workers of Ray import modules from the working directory of this process.
    os.chdir(folder)
    messages = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    # Other output, also that of C++ code, must not mix with the messages.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    text = sys.stdin.readline()
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        # Ray reads the environment when it is imported.
        from captum_moxi.evaluation.engines.ray_job import RayJob

        job = RayJob.from_json(text)
        # Ray lets all users write to its folder, but they cannot open the folder above it.
        temp_dir = os.path.join(folder, "ray")
        for count in job.run_in_cluster(address="local", include_dashboard=False, _temp_dir=temp_dir):
            print(json.dumps({"images": count}), file=messages)
    except tuple(REPORTED_ERRORS.values()) as error:
        kind = next(name for name, type in REPORTED_ERRORS.items() if isinstance(error, type))
        print(json.dumps({"type": kind, "error": str(error)}), file=messages)
    except KeyboardInterrupt:
        # The process that started the session reports the interruption.
        sys.exit(130)


def _stop_with_parent() -> None:
    """Stop this process when the standard input ends, because the process that started it has then ended."""
    sys.stdin.read()
    _thread.interrupt_main()
    time.sleep(GRACE_SECONDS)
    # Ray ends its other processes itself.
    os._exit(1)
