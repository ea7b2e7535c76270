"""Running the engine at the site: its own process, the distribution's Python, a deadline.

Host side only; it does not travel in the engine.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from imageport.cloud import Cancelled, never
from imageport.compose.build_engine import build_engine
from imageport.compose.contract import Action, EngineJob, EngineReport
from imageport.errors import EngineFailed, InputError, MissingTool, TransferCancelled
from imageport.formats.nbd_view import NbdView
from imageport.formats.virtual_disk import VirtualDisk
from imageport.progress import EventSink, Stage, silent

PYTHON = Path("/usr/bin/python3")
"""The distribution's own: its guestfs module exists for no other."""
_POLL_SECONDS = 0.2
_LOG_TAIL_CHARACTERS = 4000
_KILL_AFTER_SECONDS = 5.0


def run_site_engine(
    disk: VirtualDisk | Path,
    job: EngineJob,
    *,
    payload: Path | None = None,
    deadline_seconds: float = 1800.0,
    events: EventSink = silent,
    cancelled: Cancelled = never,
) -> EngineReport:
    """Run one job here and return its report; refusals and a failed verdict are in the report.

    Args:
        disk: a `VirtualDisk` is served read-only (``inspect``, ``plan``, ``verify``); a path is a
            raw file, or qcow2 by its ending, and is the only thing that ``compose`` accepts.
        job: ``job.disk.path`` is filled in here.
        payload: the operator's folder with driver packages.
        deadline_seconds: after that the engine is stopped.
        events: told what the engine says, sentence by sentence.
        cancelled: asked several times a second.

    Raises:
        InputError: ``compose`` on a `VirtualDisk`.
        EngineFailed: no report, or one with an error; ``fields['log']`` has the last lines.
        TransferCancelled: the operator cancelled.
        ShareUnreachable …: reading the `VirtualDisk` failed; its own error, so that it is retried.
        MissingTool: this machine has no distribution Python.
    """
    if job.action is Action.COMPOSE and not isinstance(disk, Path):
        raise InputError("Cannot compose a read-only disk: give the path of a copy.")
    if not PYTHON.exists():
        raise MissingTool(f"Cannot run the engine: '{PYTHON}' is not installed.")
    with tempfile.TemporaryDirectory(prefix="imageport-site-") as name:
        folder = Path(name)
        with _served(disk, folder) as path:
            placed = replace(job, disk=replace(job.disk, path=path))
            (folder / "job.json").write_text(placed.to_json(), encoding="utf-8")
            stage = Stage("engine", events, unit="steps")
            _run(folder, payload, deadline_seconds, stage, cancelled)
            return _report(folder)


@contextmanager
def _served(disk: VirtualDisk | Path, folder: Path) -> Iterator[str]:
    if isinstance(disk, Path):
        yield str(disk.resolve())
        return
    with NbdView(disk, folder / "disk.sock") as view:
        try:
            yield view.uri
        except EngineFailed as error:
            # The engine saw an input/output error; what the disk itself said is the cause.
            if view.last_error is not None:
                raise view.last_error from error
            raise


def _run(
    folder: Path,
    payload: Path | None,
    deadline_seconds: float,
    stage: Stage,
    cancelled: Cancelled,
) -> None:
    engine = build_engine(folder / "engine.pyz")
    argv = [str(PYTHON), str(engine.path), str(folder / "job.json"), str(folder / "report.json")]
    if payload is not None:
        argv += ["--payload", str(payload.resolve())]
    deadline = time.monotonic() + deadline_seconds
    with (folder / "engine.log").open("wb") as log:
        # A group of its own, so that libguestfs' machine can be ended with it.
        process = subprocess.Popen(
            argv, env=_environment(folder), stdout=log, stderr=log, start_new_session=True
        )
    said = 0
    try:
        while process.poll() is None:
            said = _note_new(folder, said, stage)
            if cancelled():
                raise TransferCancelled("Cancelled while the engine worked; the copy is discarded.")
            if time.monotonic() > deadline:
                raise EngineFailed(
                    f"Cannot finish the engine's work: no end in {deadline_seconds:.0f} s.",
                    log=_log_tail(folder),
                )
            time.sleep(_POLL_SECONDS)
    finally:
        _end(process)
    _note_new(folder, said, stage)
    stage.finish()


def _environment(folder: Path) -> dict[str, str]:
    """Keep the copies that the engine makes of the guest's hives in our folder.

    An engine that is cancelled or over its deadline is killed and cleans nothing up.
    """
    # By default libguestfs' cache follows TMPDIR: its machine would be built anew for every job.
    cache = os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108 - libguestfs's own default
    return {"LIBGUESTFS_CACHEDIR": cache, **os.environ, "TMPDIR": str(folder)}


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the engine and its machine; nothing to do when it has ended by itself."""
    if process.poll() is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_KILL_AFTER_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _note_new(folder: Path, said: int, stage: Stage) -> int:
    """Pass on the engine's new sentences; returns how many lines were passed on in all."""
    lines = (folder / "engine.log").read_text("utf-8", "replace").splitlines()
    for line in lines[said:]:
        if line.startswith("imageport-engine: "):
            stage.note(line.removeprefix("imageport-engine: "))
    return len(lines)


def _log_tail(folder: Path) -> str:
    return (folder / "engine.log").read_text("utf-8", "replace")[-_LOG_TAIL_CHARACTERS:]


def _report(folder: Path) -> EngineReport:
    try:
        report = EngineReport.from_json((folder / "report.json").read_bytes())
    except (OSError, ValueError) as error:
        log = _log_tail(folder)
        raise EngineFailed(f"Cannot read the engine's report: {error}.", log=log) from error
    if report.error:
        raise EngineFailed(f"The engine failed: {report.error}", log=_log_tail(folder))
    return report
