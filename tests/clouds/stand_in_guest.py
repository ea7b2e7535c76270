"""A stand-in for firmware and guest: reads and writes the disk it boots from, then does as told."""

from __future__ import annotations

import sys
from pathlib import Path

from imageport.sandbox.emulator_service import CloudService
from tests.clouds.machine_lab import ChooseGuest

GUEST = """
import json, sys, time
from pathlib import Path
disk, outcome = Path(sys.argv[1]), Path(sys.argv[2])
mode = {mode!r}
with disk.open("r+b") as file:
    print("guest sees", file.read(8).hex(), flush=True)
    if mode == "slow":
        time.sleep(2)
    file.seek(1024)
    file.write(b"booted")
if mode == "hang":
    print("*** STOP: 0x0000007B", flush=True)
    time.sleep(600)
print("imageport-firstboot: done", flush=True)
outcome.write_text(json.dumps({{"outcome": "shutdown"}}))
"""


def guest_of(service: CloudService, folder: Path) -> ChooseGuest:
    """Return what chooses whether the guests of a service ``work``, are ``slow`` or ``hang``."""

    def choose(mode: str) -> None:
        program = folder / "guest.py"
        program.write_text(GUEST.format(mode=mode))
        service.turn(boot_command=[sys.executable, str(program)])

    return choose
