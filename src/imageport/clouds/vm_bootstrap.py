"""Runs inside the engine machine as its user data: standard library only, no imageport.

Finds the disk where its cloud shows it, fetches engine and payload, checks their digests, runs the
engine, delivers log and report, and shuts the machine down. Its text is sent as it stands, so it
stays below EC2's 16 KiB.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import urllib.request
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

PYTHON = "/usr/bin/python3"
PACKAGES = ("python3-guestfs", "libguestfs-tools", "linux-image-amd64")
LOG_BYTES = 256 * 1024


def run_job(
    setup_url: str,
    setup_sha256: str,
    minutes: int,
    task: Callable[[dict[str, Any], Path], None] | None = None,
) -> None:
    """Do the whole job; whatever happens, the machine ends after ``minutes``.

    ``task`` is what to do instead of running an engine; its text follows this one.
    """
    subprocess.run(["shutdown", "-h", f"+{minutes}"], check=False)
    work = Path(tempfile.mkdtemp(prefix="imageport-"))
    setup: dict[str, Any] = {}
    try:
        setup = json.loads(fetch(setup_url, setup_sha256, work / "setup.json").read_bytes())
        (task or carry_out)(setup, work)
    except Exception:
        # The only way to tell anyone is the log; the caller sees the machine end without a report.
        say(work, traceback.format_exc())
    finally:
        try:
            deliver(setup, work)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            subprocess.run(["shutdown", "-h", "now"], check=False)


def carry_out(setup: dict[str, Any], work: Path) -> None:
    """Fetch, find the disk, run the engine."""
    engine = fetch(setup["engine"]["url"], setup["engine"]["sha256"], work / "engine.pyz")
    argv = [PYTHON, str(engine), str(work / "job.json"), str(work / "report.json")]
    if setup.get("payload"):
        packed = fetch(setup["payload"]["url"], setup["payload"]["sha256"], work / "payload.zip")
        with zipfile.ZipFile(packed) as archive:
            archive.extractall(work / "payload")
        argv += ["--payload", str(work / "payload")]
    job = setup["job"]
    job["disk"]["path"] = str(find_disk(setup["devices"], setup["device_seconds"]))
    (work / "job.json").write_text(json.dumps(job))
    install_guestfs(work)
    say(work, f"engine starts on {job['disk']['path']}")
    with (work / "log.txt").open("ab") as log:
        done = subprocess.run(
            argv, stdout=log, stderr=log, timeout=setup["engine_seconds"], check=False, cwd=work
        )
    say(work, f"engine ended with {done.returncode}")


def find_disk(devices: list[str], seconds: float) -> Path:
    """Wait for the first of the names below ``/dev`` under which the cloud may show the disk."""
    root = Path(os.environ.get("IMAGEPORT_DEVICE_ROOT", "") or "/", "dev")
    end = time.monotonic() + seconds
    while True:
        for name in devices:
            if (root / name).exists():
                return root / name
        if time.monotonic() > end:
            raise TimeoutError(f"no device {' or '.join(devices)} after {seconds} s")
        time.sleep(0.5)


def install_guestfs(work: Path) -> None:
    """Install the distribution's guestfs where it is missing: the laboratory's way."""
    probe = subprocess.run([PYTHON, "-c", "import guestfs"], capture_output=True, check=False)
    if probe.returncode == 0:
        return
    say(work, "guestfs is missing on this engine image: installing packages (laboratory default)")
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    with (work / "log.txt").open("ab") as log:
        for argv in (
            ["apt-get", "update"],
            ["apt-get", "install", "-y", "--no-install-recommends", *PACKAGES],
        ):
            subprocess.run(argv, stdout=log, stderr=log, env=environment, check=True)


def fetch(url: str, sha256: str, path: Path) -> Path:
    """Download to ``path`` and compare the digest; the URL appears in no message."""
    last = ""
    for pause in (1, 2, 4, 8, 0):
        try:
            request = urllib.request.Request(url)  # noqa: S310 - a presigned URL
            with urllib.request.urlopen(request, timeout=60) as answer, path.open("wb") as file:  # noqa: S310
                shutil.copyfileobj(answer, file)
            break
        except (OSError, ValueError, http.client.HTTPException) as error:
            # Some of these carry the URL, which is a secret: only the kind is told.
            last = f"{type(error).__name__} {getattr(error, 'code', '')}".strip()
            time.sleep(pause)
    else:
        raise ConnectionError(f"cannot fetch {path.name}: {last}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(f"bad {path.name}: found sha256 {found}, needed {sha256}")
    return path


def deliver(setup: dict[str, Any], work: Path) -> None:
    """Put the log, then the report: the caller ends this machine when it sees the report."""
    log, report = work / "log.txt", work / "report.json"
    tail = log.read_bytes()[-LOG_BYTES:] if log.exists() else b""
    headers = setup.get("put_headers", {})
    if "log_url" in setup:
        put(setup["log_url"], tail, headers)
    if "report_url" in setup and report.exists():
        put(setup["report_url"], report.read_bytes(), headers)
    else:
        sys.stderr.write(tail[-4000:].decode(errors="replace"))


def put(url: str, data: bytes, headers: dict[str, str]) -> None:
    """Upload to the one key that the URL is for, with what headers its cloud wants."""
    for pause in (1, 2, 4, 8, 0):
        try:
            request = urllib.request.Request(url, data=data, method="PUT")  # noqa: S310 - presigned
            request.add_header("Content-Type", "application/octet-stream")
            for name, value in headers.items():
                request.add_header(name, value)
            with urllib.request.urlopen(request, timeout=60):  # noqa: S310 - a presigned URL
                return
        except (OSError, ValueError, http.client.HTTPException) as error:
            sys.stderr.write(f"imageport: delivery failed: {type(error).__name__}\n")
            time.sleep(pause)


def say(work: Path, text: str) -> None:
    """Write to the log and to the console, which the cloud keeps when all else fails."""
    with (work / "log.txt").open("a") as log:
        log.write(text.rstrip() + "\n")
    sys.stderr.write(f"imageport: {text.rstrip()}\n")
