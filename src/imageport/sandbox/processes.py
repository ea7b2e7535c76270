"""Child processes of the embedded site: started with a mark, so that none is ever lost.

Every child inherits ``IMAGEPORT_SITE_ROOT``. Whatever a child starts in turn, also in sessions of
its own, carries the mark too; stopping the site ends everything that carries it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from imageport.errors import EngineFailed

MARK = "IMAGEPORT_SITE_ROOT"
MACHINE_MARK = "IMAGEPORT_MACHINE_ROOT"
"""The same for one machine of an emulated cloud, which may end while the site goes on."""
SERVICE_MARK = "IMAGEPORT_SERVICE_ROOT"
"""The same for one service with what it started."""


class Child:
    """One service of the site, its output in ``log``."""

    def __init__(self, name: str, argv: list[str], env: Mapping[str, str], log: Path) -> None:
        self.name = name
        self._log = log
        self._asked = False
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                env=dict(env),
                cwd=log.parent,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Return the process id."""
        return self._process.pid

    def wait_until(self, ready: Callable[[], bool], timeout_seconds: float) -> None:
        """Poll ``ready`` until it is true; `EngineFailed` with the log's end when it never is."""
        deadline = time.monotonic() + timeout_seconds
        while not ready():
            ended = self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                cause = "it ended" if ended else f"no answer in {timeout_seconds:.0f} s"
                raise EngineFailed(
                    f"Cannot start '{self.name}': {cause}.",
                    hint=f"Its log is {self._log}.",
                    log=self.log_tail(),
                )
            time.sleep(0.2)

    def log_tail(self, lines: int = 20) -> str:
        """Return the end of the service's output."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def kill(self, sign: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to this process alone: what a crash looks like."""
        self._process.send_signal(sign)
        if sign == signal.SIGKILL:
            self._process.wait()

    def ask_to_end(self) -> None:
        """Ask the process group to end, once: Prefect's programs break off at a second time."""
        if not self._asked and self._process.poll() is None:
            self._asked = True
            _signal_group(self._process.pid, signal.SIGTERM)

    def stop(self, timeout_seconds: float = 10) -> None:
        """Ask the process group to end, then make it; may be called twice."""
        if self._process.poll() is not None:
            return
        self.ask_to_end()
        try:
            self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            _signal_group(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _signal_group(pid: int, sign: signal.Signals) -> None:
    try:
        os.killpg(pid, sign)
    except ProcessLookupError:
        return


def marked_processes(root: Path, mark: str = MARK) -> list[int]:
    """Return the processes that belong to the site at ``root``, without this one."""
    wanted = f"{mark}={root}".encode()
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue  # ended meanwhile, or a kernel thread
        if wanted in variables:
            found.append(int(entry.name))
    return found


def end_marked(root: Path, timeout_seconds: float = 10, *, mark: str = MARK) -> int:
    """End every process of the site at ``root``; returns how many there were."""
    first = marked_processes(root, mark)
    for sign, patience in ((signal.SIGTERM, timeout_seconds), (signal.SIGKILL, 5.0)):
        for pid in marked_processes(root, mark):
            try:
                os.kill(pid, sign)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + patience
        while marked_processes(root, mark) and time.monotonic() < deadline:
            time.sleep(0.1)
    return len(first)
