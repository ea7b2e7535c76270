"""What the upload benchmarks share: the image on a real share, and how figures are told."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from imageport.formats.opening import open_disk
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.model import GIB, MIB, ExtentState
from imageport.sandbox.samba import SambaServer
from imageport.storage.smb import SmbCredentials, SmbFolder, SmbLocation

USER = "bench"
PASSWORD = "Planted-Secret-2718"
NAME = "golden.vhdx"
SIZE_BYTES = 4 * GIB
DATA_BYTES = GIB
PIECE_BYTES = 4 * MIB
FIGURES = ("read_bytes", "sent_bytes", "seconds", "cpu_seconds", "peak_mib")


def share(root: Path) -> SambaServer:
    """Return a server of one empty share; not started."""
    return SambaServer(root / "server", {"store": root / "store"}, USER, PASSWORD)


def write_image(samba: SambaServer) -> int:
    """Write the image over the share; return what of it the file system has stored.

    Half of the data fills whole payload blocks, half is scattered, as on a disk in use.
    """
    half = DATA_BYTES // 2
    places = [number * PIECE_BYTES for number in range(half // PIECE_BYTES)]
    places += random.sample(range(half, SIZE_BYTES, PIECE_BYTES), half // PIECE_BYTES)
    location = SmbLocation.parse(samba.location("store"))
    with SmbFolder(location, SmbCredentials(USER, PASSWORD)) as folder:
        with folder.create(NAME) as file:
            file.set_sparse()
            writer = VhdxWriter(file, SIZE_BYTES)
            for place in sorted(places):
                for start in range(place, place + PIECE_BYTES, MIB):
                    writer.write_at(start, random.randbytes(MIB))  # noqa: S311 - contents
            writer.finish()
        with folder.open_read(NAME) as file:
            return sum(length for _offset, length in file.allocated_ranges())


def flat_image(samba: SambaServer, path: Path) -> None:
    """Write the disk as other tools want it: flat, sparse, on the local disk."""
    location = SmbLocation.parse(samba.location("store"))
    with (
        SmbFolder(location, SmbCredentials(USER, PASSWORD)) as folder,
        open_disk(folder.open_read(NAME)) as disk,
        path.open("wb") as file,
    ):
        ranges = [
            (extent.offset_bytes, extent.length_bytes)
            for extent in disk.extents()
            if extent.state is ExtentState.DATA
        ]
        for offset, piece in disk.read_many(ranges):
            file.seek(offset)
            file.write(piece)
        file.truncate(disk.size_bytes)


def run_contender(script: Path, *arguments: str) -> dict[str, Any]:
    """Run one way of uploading in a process of its own; return what it prints."""
    environment = os.environ | {"IMAGEPORT_SMB_USER": USER, "IMAGEPORT_SMB_PASSWORD": PASSWORD}
    argv = [sys.executable, str(script), *arguments]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def say(line: str) -> None:
    sys.stdout.write(f"\n{line}")


def tell(title: str, values: dict[str, Any]) -> None:
    say(
        f"{title:<10} read {values['read_bytes'] / MIB:7.0f} MiB   "
        f"sent {values['sent_bytes'] / MIB:7.0f} MiB   {values['seconds']:7.1f} s   "
        f"CPU {values['cpu_seconds']:6.1f} s   peak {values['peak_mib']:5d} MiB"
    )


def tell_ratio(title: str, theirs: dict[str, Any], ours: dict[str, Any]) -> None:
    ratios = {name: theirs[name] / max(ours[name], 0.1) for name in FIGURES}
    words = ", ".join(f"{name} {value:.1f}" for name, value in ratios.items())
    say(f"ratio {title} to imageport: {words}")


def measured(argv: list[str], environment: dict[str, str]) -> dict[str, Any]:
    """Run another tool and return its figures, its exit code and what it printed."""
    started = time.monotonic()
    with subprocess.Popen(
        argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdout is not None
        watcher = _Watcher(child.pid)
        watcher.start()
        output = child.stdout.read()
        _pid, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        watcher.join()
    return {
        "exit_code": child.returncode,
        "output": output,
        "read_bytes": watcher.read_bytes,
        "peak_mib": watcher.peak_kib // 1024,
        "seconds": round(time.monotonic() - started, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
    }


class _Watcher(threading.Thread):
    """Looks at a process until it ends; ru_maxrss would start with what its parent had."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._folder = Path(f"/proc/{pid}")
        self.peak_kib = 0
        self.read_bytes = 0

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while peak := self._number("status", "VmHWM:"):
                self.peak_kib = max(self.peak_kib, peak)
                self.read_bytes = max(self.read_bytes, self._number("io", "rchar:"))
                time.sleep(0.1)

    def _number(self, name: str, key: str) -> int:
        """Return a figure; 0 when it is not there, as of a process that ended."""
        lines = (self._folder / name).read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith(key)), 0)
