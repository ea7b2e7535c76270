"""What an engine machine gets in every cloud: a script, a document, and URLs for one job.

The machine has no identity in the cloud. What it may do is in signed URLs: fetch three objects,
write two. Signed URLs are secrets: they exist only inside the two texts made here.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from imageport.cloud import CloudDisk
from imageport.clouds import vm_bootstrap
from imageport.compose.build_engine import build_engine
from imageport.compose.contract import EngineJob, EngineReport
from imageport.errors import CloudError, EngineFailed

DEVICE_SECONDS = 300
GRACE_SECONDS = 600.0
"""Boot, packages and delivery around the engine's own time."""
TAIL_CHARACTERS = 4000
SETUP, ENGINE, PAYLOAD = "setup.json", "engine.pyz", "payload.zip"
REPORT, LOG = "report.json", "log.txt"


class JobFolder(Protocol):
    """The folder of one job in the cloud's object store."""

    def write(self, name: str, data: bytes) -> str:
        """Write one object and return its sha256."""

    def write_file(self, name: str, path: Path) -> str:
        """Write a file of any size as one object and return its sha256."""

    def read(self, name: str) -> bytes | None:
        """Return one object, or None while it is not there."""

    def read_url(self, name: str, seconds: float) -> str:
        """Return a URL that can read this one object and nothing else."""

    def write_url(self, name: str, seconds: float) -> str:
        """Return a URL that can write this one object and nothing else."""


@dataclass(frozen=True, slots=True)
class EngineRun:
    """One engine job on one disk."""

    disk: CloudDisk
    job: EngineJob
    payload: Path | None
    deadline_seconds: float

    @property
    def action(self) -> str:
        """Return what is done with the disk, for messages."""
        return str(self.job.action)

    @property
    def machine_seconds(self) -> float:
        """Return after how long the machine ends by itself, and its URLs with it."""
        return self.deadline_seconds + GRACE_SECONDS


@dataclass(frozen=True, slots=True)
class DeviceNames:
    """How a cloud shows the disk and what its object store wants to hear."""

    devices: tuple[str, ...]
    """Names below ``/dev``, the first that appears counts."""
    put_headers: Mapping[str, str] = field(default_factory=dict)


def write_setup(run: EngineRun, folder: JobFolder, names: DeviceNames) -> str:
    """Write engine, payload and setup document to the folder; return the machine's script."""
    seconds = run.machine_seconds
    with tempfile.TemporaryDirectory() as scratch:
        built = build_engine(Path(scratch, ENGINE))
        folder.write_file(ENGINE, built.path)
    setup: dict[str, Any] = {
        "engine": {"url": folder.read_url(ENGINE, seconds), "sha256": built.sha256},
        "job": json.loads(run.job.to_json()),
        "devices": list(names.devices),
        "device_seconds": DEVICE_SECONDS,
        "engine_seconds": run.deadline_seconds,
        "report_url": folder.write_url(REPORT, seconds),
        "log_url": folder.write_url(LOG, seconds),
        "put_headers": dict(names.put_headers),
    }
    if run.payload is not None:
        sha256 = folder.write_file(PAYLOAD, run.payload)
        setup["payload"] = {"url": folder.read_url(PAYLOAD, seconds), "sha256": sha256}
    setup_sha256 = folder.write(SETUP, json.dumps(setup).encode())
    return user_data(folder.read_url(SETUP, seconds), setup_sha256, int(seconds // 60) + 1)


def user_data(
    setup_url: str, setup_sha256: str, minutes: int, task: Callable[..., None] | None = None
) -> str:
    """Return the script that the machine runs at its first boot.

    ``task`` is a function whose module takes from imageport nothing but `vm_bootstrap`; its text
    goes with it.
    """
    source = Path(vm_bootstrap.__file__).read_text()
    told = [repr(setup_url), repr(setup_sha256), str(minutes)]
    if task is not None:
        source += "\n\n" + _text_behind(Path(task.__code__.co_filename).read_text())
        told.append(task.__name__)
    # The URL in a line of its own: a traceback, which consoles show, prints the line that calls.
    return f"#!{vm_bootstrap.PYTHON}\n{source}\n\nJOB = ({', '.join(told)})\nrun_job(*JOB)\n"


def _text_behind(text: str) -> str:
    """Return a module's text as it can stand behind that of the bootstrap."""
    first = ("from __future__ ", "from imageport.clouds.vm_bootstrap import ")
    return "".join(line for line in text.splitlines(keepends=True) if not line.startswith(first))


class WatchedRun(Protocol):
    """What `ReportWatch` needs to know of a job."""

    @property
    def disk(self) -> CloudDisk:
        """Return the disk that is worked on."""

    @property
    def action(self) -> str:
        """Return what is done with the disk, for messages."""

    @property
    def deadline_seconds(self) -> float:
        """Return how long the job may take."""


class ReportWatch:
    """Looks for the report of one job, and for the end of a machine that leaves none.

    Args:
        run: The job.
        folder: Where the report will lie.
        machine: Name of the machine, "" when there is none (any more).
        ended: Says why the machine will not deliver any more; "" while it may.
    """

    def __init__(
        self, run: WatchedRun, folder: JobFolder, machine: str, ended: Callable[[], str]
    ) -> None:
        self._run = run
        self._folder = folder
        self._machine = machine
        self._ended = ended
        self._cause = "" if machine else "there is no machine"

    def check(self) -> bytes | None:
        """Return the report, b"" when none will come, None when it may still come."""
        report = self._folder.read(REPORT)
        if report is not None or self._cause:
            return report if report is not None else b""
        # Look once more at the next turn: the report may come between the two questions.
        self._cause = self._ended()
        return None

    def report(self, found: bytes | None, console: Callable[[], str]) -> EngineReport:
        """Read what `check` found last; `EngineFailed` with the log when there is no report."""
        delivered = self.delivered(found, console)
        try:
            return EngineReport.from_json(delivered)
        except (ValueError, RecursionError) as error:  # the second, of brackets in brackets
            raise self.failed(str(error), console) from error

    def delivered(self, found: bytes | None, console: Callable[[], str]) -> bytes:
        """Return what `check` found last; `EngineFailed` with the log when that is nothing."""
        if not found:
            cause = self._cause or f"no report after {self._run.deadline_seconds:.0f} s"
            raise self.failed(cause, console)
        return found

    def failed(self, cause: str, console: Callable[[], str]) -> EngineFailed:
        """Return the error that tells the log, or the console's text where there is no log."""
        disk = self._run.disk
        return EngineFailed(
            f"Cannot {self._run.action} '{disk.id}': {cause}.",
            hint="Read the log in this error; a missing package or device shows there.",
            log=self._log(console)[-TAIL_CHARACTERS:],
            instance=self._machine,
            disk=asdict(disk),
        )

    def _log(self, console: Callable[[], str]) -> str:
        """Return the log, or the console's text; that neither can be read hides no failure."""
        missing = ""
        try:
            log = (self._folder.read(LOG) or b"").decode(errors="replace")
            if not log and self._machine:
                missing = "console text"
                log = console()
        except CloudError as error:
            log = f"(no {missing or 'log'}: {error.message})"
        return log
