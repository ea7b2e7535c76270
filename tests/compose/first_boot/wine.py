"""Wine's cmd.exe as the Windows that first boot runs in, with stand-ins for what it calls.

What is real here: cmd.exe's own language (as Wine understands it), reg.exe, find.exe and the
registry. What is not: every other program is `stand_in.c`, a second of ping lasts 20 ms, and the
serial port is a file, for Wine's cmd cannot write to its own serial devices. Wine also differs
from Windows in what these tests cannot show: ``set`` does not reset ERRORLEVEL in its .cmd files,
code 259 is lost, a file that another process holds open can still be written to, and there is no
service manager; those are held as text in ``test_first_boot_text.py``.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from imageport.compose.first_boot.plan import FirstBootPlan
from imageport.compose.first_boot.programs import own_programs
from imageport.compose.first_boot.script import render_script
from tests.compose.first_boot.stand_in import build_stand_in

FOLDER = "drive_c/windows/ImageportFirstBoot"
SETS = ("ControlSet001", "ControlSet002")
_STANDING_IN = (
    "pnputil.exe", "ping.exe", "shutdown.exe", "mode.com", "sc.exe", "netsh.exe", "bcdedit.exe",
    "msiexec.exe", "waitfor.exe", "WindowsPowerShell/v1.0/powershell.exe",
)  # fmt: skip
_OWN_PROGRAMS = "ping.exe,shutdown.exe,sc.exe,netsh.exe,msiexec.exe,waitfor.exe,powershell.exe=n"
_NO_EXTRAS = "mscoree,mshtml=;winemenubuilder.exe=d"
_LEFT_RUNNING = {
    b"cmd.exe", b"ping.exe", b"powershell.exe", b"msiexec.exe", b"waitfor.exe", b"shutdown.exe",
    b"start.exe",  # Wine's "start" is a program, which may not have come to its work yet
}  # fmt: skip
_START_SECONDS = 60.0
_SCRIPT = "C:\\windows\\ImageportFirstBoot\\firstboot.cmd"


def missing_tool() -> str:
    """Return what these tests lack on this machine, "" when nothing."""
    needed = ("wine", "wineserver", "gcc", "ld")
    return next((name for name in needed if shutil.which(name) is None), "")


@dataclass(slots=True)
class WineWindows:
    """One Windows folder; `boot` is one start of the machine."""

    prefix: Path

    @classmethod
    def make(cls, prefix: Path) -> WineWindows:
        """Make the folder (about ten seconds) with all stand-ins."""
        windows = cls(prefix)
        windows._wine("wineboot", "--init")
        windows._server("-w")
        windows._server("-p")  # what serves this Windows stays up: starting it takes seconds
        program = build_stand_in(prefix)
        for name in _STANDING_IN:
            place = windows.system / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.unlink(missing_ok=True)
            place.write_bytes(program)
        return windows

    @property
    def system(self) -> Path:
        """System32."""
        return self.prefix / "drive_c/windows/system32"

    @property
    def folder(self) -> Path:
        """The first-boot folder."""
        return self.prefix / FOLDER

    def prepare(self, plan: FirstBootPlan, programs: dict[str, str] | None = None) -> None:
        """Lay a plan down as composing does; ``programs`` are the text of NAME.cmd by name."""
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "programs").mkdir(parents=True)
        for stale in [*self.system.rglob("*.cmd"), *self.system.rglob("calls.txt")]:
            stale.unlink()
        script = render_script(plan.ordered(), SETS)
        assert script.count(b">COM1 echo") == 4
        script = script.replace(b">COM1 echo", b'>>"%HERE%serial.txt" echo')
        (self.folder / "firstboot.cmd").write_bytes(script)
        for path, content in own_programs(plan).items():
            (self.folder / "programs" / Path(path).name).write_bytes(content)
        for name, text in (programs or {}).items():
            self._write(self.folder / "programs" / f"{name}.cmd", text)

    def answer(self, program: str, text: str) -> None:
        """Let a stand-in do what a text for cmd.exe says, and end with its code."""
        self._write(self.system / f"{program}.cmd", text)

    def boot(self, ends: int = 1) -> str:
        """Start the service as its manager would; returns how the machine ended: "/s" or "/r".

        That is the case once shutdown was called so many times.
        """
        before = len(self._ends()) + ends - 1
        self._wine("cmd", "/d", "/c", _SCRIPT)
        self.wait_until(lambda: len(self._ends()) > before)
        self.end_programs()  # what the end of a machine does to all that still runs
        return self._ends()[before].split()[1]

    def watch(self) -> None:
        """Start what keeps the deadline, alone, as after a restart that a step asked for."""
        # Wine's "start" leaves any code behind; whether it did start is seen by what it does.
        line = f"start /b cmd /d /c {_SCRIPT} watch continue"
        self._wine("cmd", "/d", "/c", line, check=False)

    def wait_until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that first boot does."""
        until = time.monotonic() + _START_SECONDS
        while not is_so():
            assert time.monotonic() < until, f"{_START_SECONDS:.0f} s: {self.read('log.txt')}"
            time.sleep(0.05)

    def calls(self, *names: str) -> list[str]:
        """Return what was called, in order, as command lines; those of some programs only."""
        found = [place.read_text("cp437") for place in self.system.rglob("calls.txt")]
        lines = [line.strip() for text in found for line in text.splitlines()]
        return [line for line in lines if not names or line.split()[0] in names]

    def read(self, name: str) -> str:
        """Return a file of the first-boot folder, "" when it is not there."""
        path = self.folder / name
        return path.read_text("cp437") if path.exists() else ""

    def serial(self) -> list[str]:
        """Return the lines on the serial port."""
        return self.read("serial.txt").splitlines()

    def reg(self, *arguments: str) -> str:
        """Run Wine's reg.exe; "" when it says that there is no such key or value."""
        return self._wine("reg", *arguments, check=False)

    def import_reg(self, text: str) -> None:
        """Put keys and values into the registry, at the cost of one program."""
        file = self.prefix / "drive_c/import.reg"
        lines = f"Windows Registry Editor Version 5.00\n\n{text}".replace("\n", "\r\n")
        file.write_bytes(lines.encode("ascii"))
        self._wine("reg", "import", "C:\\import.reg")

    def _ends(self) -> list[str]:
        return self.calls("shutdown")

    def _wine(self, *argv: str, check: bool = True) -> str:
        """Run a program of Wine's; returns what it says, "" when it fails."""
        # A file, not a pipe: what is started beside keeps it open, and would be waited for.
        with tempfile.TemporaryFile() as output:
            done = subprocess.run(
                ["wine", *argv], env=self._environment(), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.DEVNULL, check=check, timeout=120,
            )  # fmt: skip
            output.seek(0)
            return output.read().decode("cp437") if done.returncode == 0 else ""

    def close(self) -> None:
        """End everything that runs in this folder."""
        self._server("-k")
        self._server("-w")

    def _server(self, option: str) -> None:
        subprocess.run(["wineserver", option], env=self._environment(), check=False, timeout=60)

    def end_programs(self) -> None:
        """End what first boot has started and left running, by process id."""
        mine = f"WINEPREFIX={self.prefix}".encode()
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (process / "cmdline").read_bytes().split(b"\0")
                program = words[0].rpartition(b"\\")[2].lower()
                is_ours = mine in (process / "environ").read_bytes().split(b"\0")
                if program in _LEFT_RUNNING and is_ours:
                    os.kill(int(process.name), signal.SIGKILL)

    def _environment(self) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if name in {"PATH", "HOME", "LANG"}}
        overrides = f"{_NO_EXTRAS};{_OWN_PROGRAMS}"
        return {**kept, "WINEPREFIX": str(self.prefix), "WINEDEBUG": "-all",
                "WINEDLLOVERRIDES": overrides}  # fmt: skip

    @staticmethod
    def _write(path: Path, text: str) -> None:
        path.write_bytes(("@echo off\n" + text).replace("\n", "\r\n").encode("ascii"))
