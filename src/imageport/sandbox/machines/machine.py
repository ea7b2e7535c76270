"""What a machine runs: a user-data program, a disk that boots, or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imageport.sandbox.machines.device_folder import DeviceFolder
from imageport.sandbox.machines.left_mounts import remove_folder
from imageport.sandbox.machines.machine_programs import program_environment, write_programs
from imageport.sandbox.processes import MACHINE_MARK, end_marked

LOOK_SECONDS = 0.2
END_SECONDS = 4.0
"""How long a process may take to end when its machine is switched off."""


class BootSettings(Protocol):
    """What a test may change about a boot; read at each one."""

    boot_command: list[str]
    """Program that stands in for firmware and guest; empty runs the real ones."""
    firmware_seconds: float
    """How long a booted disk may take to power off by itself."""


@dataclass(frozen=True, slots=True)
class BootPlan:
    """A disk to boot, and on which cloud's hardware."""

    root: Path
    settings: BootSettings
    platform: str


class Machine(ABC):
    """One machine that is on, its files in ``folder``."""

    def __init__(self, machine_id: str, folder: Path) -> None:
        self.id = machine_id
        self.folder = folder
        self.devices = DeviceFolder(folder / "devices")
        self._console = folder / "console.txt"
        self._console.write_text("")

    @property
    def is_busy(self) -> bool:
        """Tell whether a process of this machine is alive."""
        return False

    @abstractmethod
    def start(self) -> None:
        """Begin."""

    @abstractmethod
    def end(self) -> None:
        """End every process; may be called twice."""

    def console(self) -> str:
        """Return the text on the serial port."""
        return self._console.read_bytes().decode(errors="replace")

    def say(self, text: str) -> None:
        """Write a line to the serial port."""
        with self._console.open("a") as console:
            console.write(text + "\n")

    def clear(self) -> None:
        """Remove everything but the console."""
        for entry in self.folder.iterdir():
            if entry.is_dir():
                remove_folder(entry)


class IdleMachine(Machine):
    """A machine that found nothing to boot: it is on until somebody switches it off."""

    def start(self) -> None:
        """Do nothing, as firmware without a bootable disk does."""

    def end(self) -> None:
        """Do nothing."""


class _ProcessMachine(Machine):
    """A machine whose work is a process group, watched by a thread."""

    def __init__(self, machine_id: str, folder: Path, ended: Callable[[], None]) -> None:
        super().__init__(machine_id, folder)
        self._ended = ended
        self._process: subprocess.Popen[bytes] | None = None
        self._off = threading.Event()
        self._starting = threading.Lock()

    @property
    def is_busy(self) -> bool:
        """Tell whether its process is alive."""
        return self._process is not None and self._process.poll() is None

    def end(self) -> None:
        """End the process, what it started, and what that started."""
        self._off.set()
        with self._starting:
            end_marked(self.folder, END_SECONDS, mark=MACHINE_MARK)
            if self._process is not None:
                self._process.wait()

    def _run(self, argv: list[str], environment: dict[str, str], cwd: Path) -> None:
        environment[MACHINE_MARK] = str(self.folder)
        with self._starting, self._console.open("ab") as console:
            if self._off.is_set():
                return
            self._process = subprocess.Popen(
                argv,
                env=environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(target=self._watch, name=f"watch-{self.id}", daemon=True).start()

    @abstractmethod
    def _watch(self) -> None:
        """Follow the process until the machine is off."""


class ProgramMachine(_ProcessMachine):
    """A machine of an engine image: its user data runs as a program of this computer.

    Its ``shutdown`` ends the machine, its devices are the attached volumes, and that is all it
    can see of the cloud.
    """

    def __init__(
        self, machine_id: str, folder: Path, script: str, ended: Callable[[], None]
    ) -> None:
        super().__init__(machine_id, folder, ended)
        self._script = script
        self._requests = folder / "shutdown-requests"
        self._requests.write_text("")

    def start(self) -> None:
        """Run the user data."""
        work = self.folder / "tmp"
        work.mkdir(exist_ok=True)
        script = self.folder / "user-data"
        script.write_text(self._script)
        programs = write_programs(self.folder / "programs", self._requests)
        environment = program_environment(programs, work, self.devices.root)
        interpreter = self._script.splitlines()[0].removeprefix("#!").strip()
        self._run([interpreter, str(script)], environment, work)

    def _watch(self) -> None:
        started = time.monotonic()
        while not self._off.wait(LOOK_SECONDS):
            deadline = _shutdown_deadline(self._requests.read_text(), started)
            if deadline is not None and time.monotonic() >= deadline:
                self._ended()
                return


class BootMachine(_ProcessMachine):
    """A machine that boots its root: real firmware, then the guest player in Windows' place."""

    def __init__(
        self, machine_id: str, folder: Path, boot: BootPlan, ended: Callable[[], None]
    ) -> None:
        super().__init__(machine_id, folder, ended)
        self._boot = boot
        self._outcome = folder / "outcome.json"
        self._outcome.unlink(missing_ok=True)

    def start(self) -> None:
        """Switch it on."""
        settings = self._boot.settings
        command = settings.boot_command or [
            sys.executable, "-m", "imageport.sandbox.machines.boot_disk",
        ]  # fmt: skip
        argv = [*command, str(self._boot.root), str(self._outcome)]
        argv += [str(settings.firmware_seconds), self._boot.platform]
        self._run(argv, dict(os.environ), self.folder)

    def _watch(self) -> None:
        if self._process is None:
            return
        self._process.wait()
        if self._off.is_set():
            return
        outcome = "hang"
        if self._outcome.exists():
            outcome = str(json.loads(self._outcome.read_text()).get("outcome", "hang"))
        if outcome == "shutdown":
            self._ended()


def _shutdown_deadline(requests: str, started: float) -> float | None:
    """Return when the machine goes off by what was asked of ``shutdown``; the earliest counts."""
    times = []
    for line in requests.splitlines():
        for word in line.split():
            if word == "now":
                times.append(0.0)
            elif word.startswith("+") and word[1:].isdigit():
                times.append(started + int(word[1:]) * 60.0)
    return min(times, default=None)
