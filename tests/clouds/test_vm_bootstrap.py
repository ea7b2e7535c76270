"""What runs inside the engine machine, against a plain HTTP server and as a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from imageport.clouds import vm_bootstrap
from imageport.clouds.engine_setup import user_data
from imageport.clouds.vm_bootstrap import deliver, fetch, find_disk, put

SECRET = "X-Amz-Signature=5ecre7"


@dataclass
class Bucket:
    """Objects behind signed URLs; every request is noted."""

    url: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    failures: int = 0

    def signed(self, name: str) -> str:
        return f"{self.url}/{name}?{SECRET}"


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    kept = Bucket()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name = self._name("GET")
            if kept.failures or name not in kept.objects:
                self._fail()
                return
            self.send_response(200)
            self.end_headers()
            self.wfile.write(kept.objects[name])

        def do_PUT(self) -> None:
            name = self._name("PUT")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if kept.failures:
                self._fail()
                return
            kept.objects[name] = body
            self.send_response(200)
            self.end_headers()

        def _name(self, method: str) -> str:
            name = self.path.split("?")[0].lstrip("/")
            kept.requests.append(f"{method} {name}")
            return name

        def _fail(self) -> None:
            kept.failures = max(0, kept.failures - 1)
            self.send_error(503)

        def log_message(self, *_arguments: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vm_bootstrap.time, "sleep", lambda _seconds: None)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_a_download_is_compared_with_its_digest(bucket: Bucket, tmp_path: Path):
    bucket.objects["engine"] = b"engine"
    path = fetch(bucket.signed("engine"), sha256(b"engine"), tmp_path / "engine")
    assert path.read_bytes() == b"engine"
    with pytest.raises(ValueError, match="needed 000"):
        fetch(bucket.signed("engine"), "0" * 64, tmp_path / "engine")


def test_a_download_is_tried_five_times(bucket: Bucket, tmp_path: Path):
    bucket.objects["engine"] = b"engine"
    bucket.failures = 4
    fetch(bucket.signed("engine"), sha256(b"engine"), tmp_path / "engine")
    assert bucket.requests == ["GET engine"] * 5


@pytest.mark.parametrize("url", ["{url}/nothing?{secret}", "nonsense?{secret}", "ftp://[?{secret}"])
def test_no_error_of_a_download_shows_the_url(bucket: Bucket, tmp_path: Path, url: str):
    full = url.format(url=bucket.url, secret=SECRET)
    with pytest.raises(ConnectionError, match="cannot fetch engine") as caught:
        fetch(full, "0" * 64, tmp_path / "engine")
    assert "5ecre7" not in f"{caught.value!s}{caught.value!r}"


def test_a_delivery_that_fails_does_not_show_the_url(
    bucket: Bucket, capsys: pytest.CaptureFixture[str]
):
    bucket.failures = 1
    put(bucket.signed("report"), b"{}", {"x-ms-blob-type": "BlockBlob"})
    put(f"nonsense?{SECRET}", b"{}", {})
    assert bucket.objects["report"] == b"{}"
    written = capsys.readouterr().err
    assert "delivery failed" in written
    assert "5ecre7" not in written


def test_the_log_is_delivered_before_the_report(bucket: Bucket, tmp_path: Path):
    (tmp_path / "log.txt").write_bytes(b"x" * 300_000)
    (tmp_path / "report.json").write_text("{}")
    setup = {"log_url": bucket.signed("log"), "report_url": bucket.signed("report")}
    deliver(setup, tmp_path)
    assert bucket.requests == ["PUT log", "PUT report"]
    assert len(bucket.objects["log"]) == vm_bootstrap.LOG_BYTES


def test_without_a_report_only_the_log_is_delivered(bucket: Bucket, tmp_path: Path):
    (tmp_path / "log.txt").write_text("no device\n")
    deliver({"log_url": bucket.signed("log"), "report_url": bucket.signed("report")}, tmp_path)
    assert bucket.requests == ["PUT log"]


def test_the_disk_is_found_by_its_own_names_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("IMAGEPORT_DEVICE_ROOT", str(tmp_path))
    by_id = tmp_path / "dev/disk/by-id"
    by_id.mkdir(parents=True)
    (by_id / "nvme-Amazon_Elastic_Block_Store_vol0other").touch()
    names = ["disk/azure/scsi1/lun0", "disk/by-id/nvme-Amazon_Elastic_Block_Store_vol0mine"]
    with pytest.raises(TimeoutError, match="vol0mine"):
        find_disk(names, 0.0)
    (by_id / "nvme-Amazon_Elastic_Block_Store_vol0mine").touch()
    assert find_disk(names, 0.0).name.endswith("vol0mine")


ENGINE = """
import json, sys
from pathlib import Path
job = json.loads(Path(sys.argv[1]).read_text())
print("engine was here")
if job["action"] == "plan":
    sys.exit(7)
names = [path.name for path in Path(sys.argv[4]).iterdir()]
Path(sys.argv[2]).write_text(json.dumps({"disk": job["disk"]["path"], "payload": names}))
"""


def run_machine(bucket: Bucket, tmp_path: Path, setup: dict[str, object]) -> str:
    """Run the whole user data as EC2 would, as a process; returns what ``shutdown`` was told."""
    programs = tmp_path / "programs"
    programs.mkdir()
    asked = tmp_path / "asked"
    shutdown = programs / "shutdown"
    shutdown.write_text(f'#!/bin/sh\necho "$@" >> {asked}\n')
    shutdown.chmod(0o755)
    bucket.objects["setup"] = json.dumps(setup).encode()
    script = tmp_path / "user-data"
    script.write_text(user_data(bucket.signed("setup"), sha256(bucket.objects["setup"]), 7))
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ['PATH']}",
        "IMAGEPORT_DEVICE_ROOT": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }
    done = subprocess.run(
        [vm_bootstrap.PYTHON, str(script)],
        env=environment, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "5ecre7" not in done.stdout + done.stderr
    assert not list(tmp_path.glob("imageport-*"))  # the work folder is gone
    return asked.read_text()


def setup_of(bucket: Bucket, tmp_path: Path, action: str) -> dict[str, object]:
    by_id = tmp_path / "dev/disk/by-id"
    by_id.mkdir(parents=True)
    (by_id / "nvme-Amazon_Elastic_Block_Store_vol01").touch()
    bucket.objects["engine"] = ENGINE.encode()
    packed = tmp_path / "payload.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("ena.inf", "[Version]")
    bucket.objects["payload"] = packed.read_bytes()
    return {
        "engine": {"url": bucket.signed("engine"), "sha256": sha256(bucket.objects["engine"])},
        "payload": {"url": bucket.signed("payload"), "sha256": sha256(bucket.objects["payload"])},
        "job": {"action": action, "disk": {"path": ""}},
        "devices": ["disk/by-id/nvme-Amazon_Elastic_Block_Store_vol01"],
        "device_seconds": 5,
        "engine_seconds": 30,
        "report_url": bucket.signed("report"),
        "log_url": bucket.signed("log"),
    }


needs_guestfs = pytest.mark.skipif(
    subprocess.run(
        [vm_bootstrap.PYTHON, "-c", "import guestfs"], capture_output=True, check=False
    ).returncode
    != 0,
    reason="python3-guestfs is not installed; a machine without it installs packages",
)


@needs_guestfs
def test_the_machine_runs_the_job_delivers_and_switches_itself_off(bucket: Bucket, tmp_path: Path):
    asked = run_machine(bucket, tmp_path, setup_of(bucket, tmp_path, "compose"))
    assert asked.splitlines() == ["-h +7", "-h now"]
    report = json.loads(bucket.objects["report"])
    assert report["disk"].endswith("nvme-Amazon_Elastic_Block_Store_vol01")
    assert report["payload"] == ["ena.inf"]
    assert b"engine was here" in bucket.objects["log"]


@needs_guestfs
def test_an_engine_that_fails_leaves_its_log_and_no_report(bucket: Bucket, tmp_path: Path):
    asked = run_machine(bucket, tmp_path, setup_of(bucket, tmp_path, "plan"))
    assert asked.splitlines()[-1] == "-h now"
    assert "report" not in bucket.objects
    assert b"engine ended with 7" in bucket.objects["log"]


def test_a_changed_engine_is_not_run(bucket: Bucket, tmp_path: Path):
    setup = setup_of(bucket, tmp_path, "compose")
    bucket.objects["engine"] += b"\nprint('tampered')\n"
    asked = run_machine(bucket, tmp_path, setup)
    assert asked.splitlines()[-1] == "-h now"
    assert "report" not in bucket.objects
    assert b"bad engine.pyz: found sha256" in bucket.objects["log"]
    assert b"tampered" not in bucket.objects["log"]


def test_a_machine_that_cannot_even_begin_does_not_show_the_url_on_its_console(tmp_path: Path):
    script = tmp_path / "user-data"
    script.write_text(user_data(f"https://bucket/setup?{SECRET}", "0" * 64, 7))
    done = subprocess.run(
        [vm_bootstrap.PYTHON, str(script)],
        env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "No such file or directory: 'shutdown'" in done.stderr
    assert "5ecre7" not in done.stderr


def test_a_machine_that_cannot_fetch_its_job_still_switches_itself_off(
    bucket: Bucket, tmp_path: Path
):
    setup = setup_of(bucket, tmp_path, "compose")
    bucket.failures = 100
    script = user_data(bucket.signed("setup"), "0" * 64, 7).replace("(1, 2, 4, 8, 0)", "(0, 0)")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "shutdown").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    (programs / "shutdown").chmod(0o755)
    subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)},
        capture_output=True, timeout=60, check=True,
    )  # fmt: skip
    assert (tmp_path / "asked").read_text().splitlines() == ["-h +7", "-h now"]
    assert "report" not in bucket.objects
    assert setup["device_seconds"] == 5
