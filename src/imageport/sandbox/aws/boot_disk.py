"""One boot of a disk, as a process of its own so that switching off is one signal.

Real firmware starts the disk's loader; then the guest player does what Windows would have done.
Standard output is the serial port.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from imageport.sandbox.firmware import boot_firmware


def main(disk: Path, outcome: Path, deadline_seconds: float) -> None:
    """Boot ``disk`` and write how it ended to ``outcome``."""
    # The player is independent code; it is not needed to list or to stop machines.
    from imageport.sandbox.guest_player.play import play  # noqa: PLC0415

    serial = outcome.with_name("serial.txt")
    firmware = boot_firmware(disk, serial, deadline_seconds)
    _emit(firmware.serial_text)
    if not firmware.powered_off:
        _emit("\nimageport sandbox: firmware did not start a loader that powers off\n")
        outcome.write_text(json.dumps({"outcome": "hang"}))
        return
    played = play(disk, firmware.serial_text)
    _emit(played.console_text)
    outcome.write_text(json.dumps({"outcome": played.outcome}))


def _emit(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))
