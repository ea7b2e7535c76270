"""Running the engine at the site: its own process, the distribution's Python, a deadline.

To compose, it writes to an overlay: the image that it reads is never written, and never copied.

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
from dataclasses import dataclass, replace
from pathlib import Path

from imageport.cloud import Cancelled, never
from imageport.compose.build_engine import build_engine
from imageport.compose.contract import Action, EngineJob, EngineReport
from imageport.errors import (
    EngineFailed,
    ImageportError,
    InputError,
    MissingTool,
    TransferCancelled,
)
from imageport.formats.nbd_view import NbdView
from imageport.formats.overlay_disk import OverlayDisk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.progress import EventSink, Stage, silent
from imageport.storage.local import LocalFolder

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
        disk: what is served to the engine, read-only unless it is an `OverlayDisk` to write; a
            path is a raw file, or qcow2 by its ending, which ``compose`` writes to.
        job: ``job.disk.path`` is filled in here.
        payload: the operator's folder with driver packages.
        deadline_seconds: after that the engine is stopped.
        events: told what the engine says, sentence by sentence.
        cancelled: asked several times a second.

    Raises:
        InputError: a job that writes (`EngineJob.may_write`) on a disk that cannot be written.
        EngineFailed: no report, or one with an error; ``fields['log']`` has the last lines.
        TransferCancelled: the operator cancelled.
        ShareUnreachable, ShareFull …: the disk itself failed, while it was read or because its
            overlay has no room; its own error, so that it is retried or mended.
        MissingTool: this machine has no distribution Python.
    """
    if job.may_write and not isinstance(disk, Path | OverlayDisk):
        what = "compose" if job.action is Action.COMPOSE else "take our folder off"
        raise InputError(f"Cannot {what} a read-only disk: give an overlay, or a copy's path.")
    if not PYTHON.exists():
        raise MissingTool(f"Cannot run the engine: '{PYTHON}' is not installed.")
    with tempfile.TemporaryDirectory(prefix="imageport-site-") as name:
        folder = Path(name)
        with _served(disk, folder, writable=job.may_write) as served:
            placed = replace(job, disk=replace(job.disk, path=served.path))
            (folder / "job.json").write_text(placed.to_json(), encoding="utf-8")
            stage = Stage("engine", events, unit="steps")

            def ended() -> bool:
                served.check()
                return cancelled()

            _run(folder, payload, deadline_seconds, stage, ended)
            served.check()
            return _report(folder)


@contextmanager
def overlay_over(
    base: VirtualDisk, *, key: str = "", folder: Path | None = None
) -> Iterator[OverlayDisk]:
    """Yield an overlay whose file has no name: it goes with this process, however that ends.

    Args:
        base: what is read; stays the caller's.
        key: see `OverlayDisk`.
        folder: where the file is, with room for what is written; default TMPDIR or ``/var/tmp``.
    """
    place = folder or _large_temporary()
    try:
        with (
            tempfile.TemporaryDirectory(prefix="imageport-overlay-", dir=place) as name,
            LocalFolder(Path(name)) as local,
        ):
            file = local.create("overlay")
    except OSError as error:
        if isinstance(error, ImageportError):  # `ShareFull` is both
            raise
        raise InputError(f"Cannot keep changes in '{place}': {error.strerror}.") from error
    try:
        overlay = OverlayDisk(base, file, key=key)
    except BaseException:
        file.close()
        raise
    with overlay:
        yield overlay


def _large_temporary() -> str:
    return os.environ.get("TMPDIR", "/var/tmp")  # noqa: S108 - /tmp often is memory


@dataclass(frozen=True, slots=True)
class _Served:
    """A disk as the engine finds it."""

    path: str
    view: NbdView | None = None

    def check(self) -> None:
        """Raise what the disk itself said when it failed.

        The engine only sees an input/output error, and of a lost write not even that: the machine
        writes late. So nothing that it says counts then.
        """
        if self.view is not None and self.view.last_error is not None:
            raise self.view.last_error


@contextmanager
def _served(disk: VirtualDisk | Path, folder: Path, *, writable: bool) -> Iterator[_Served]:
    if isinstance(disk, Path):
        yield _Served(str(disk.resolve()))
        return
    with NbdView(disk, folder / "disk.sock", writable=writable) as view:
        yield _Served(view.uri, view)
        if writable and isinstance(disk, OverlayDisk):
            disk.flush()


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
                raise TransferCancelled("Cancelled while the engine worked; its work is discarded.")
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
    return {"LIBGUESTFS_CACHEDIR": _large_temporary(), **os.environ, "TMPDIR": str(folder)}


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
