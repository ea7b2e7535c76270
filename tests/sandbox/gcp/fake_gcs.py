"""A bucket of fake-gcs-server, which nobody here wrote; started once for all tests."""

from __future__ import annotations

import atexit
import functools
import itertools
import json
import os
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.sandbox.gcp.gcs_lab import Bucket

PROGRAM = Path(__file__).parents[3] / ".imageport" / "fake-gcs" / "fake-gcs-server"
START_SECONDS = 60.0
_numbers = itertools.count(1)


def fake_gcs_bucket() -> Bucket:
    """Return an empty bucket; skip where the program is not built, fail with CI=true."""
    endpoint = _started()
    name = f"bucket-{next(_numbers)}"
    bucket = Bucket(endpoint, name, {})
    body = json.dumps({"name": name}).encode()
    answer = bucket.ask("POST", "/storage/v1/b?project=lab", body)
    assert answer.status == 200, answer
    return bucket


@functools.cache
def _started() -> str:
    if not PROGRAM.exists():
        missing = "fake-gcs-server is not built; ./test does it."
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    endpoint = f"http://127.0.0.1:{port}"
    argv = [str(PROGRAM), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1"]
    argv += ["-port", str(port), "-public-host", f"127.0.0.1:{port}", "-external-url", endpoint]
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    atexit.register(_end, process)
    _wait_for(process, port)
    return endpoint


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(30)


def _wait_for(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("fake-gcs-server does not start.")
            time.sleep(0.1)
        else:
            return
