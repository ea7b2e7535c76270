"""One boot of a disk, as a process of its own so that switching off is one signal.

Real firmware starts the sample's loader; then the guest player does what Windows would have done.
Standard output is the serial port.
"""

from __future__ import annotations

import json
import signal
import sys
import traceback
from pathlib import Path
from types import FrameType

from imageport.sandbox.firmware import boot_firmware

SAMPLE_MARK = "IMAGEPORT-SAMPLE".encode("utf-16-le")
"""What the sample's loader prints; it powers off instead of booting Windows."""


def main(disk: Path, outcome: Path, deadline_seconds: float, platform: str) -> None:
    """Boot ``disk`` and write how it ended to ``outcome``; one that cannot be played hangs."""
    # As an exception, so that what the player mounted is unmounted when the machine goes off.
    signal.signal(signal.SIGTERM, _switched_off)
    ended = "hang"
    try:
        ended = _boot(disk, outcome.with_name("serial.txt"), deadline_seconds, platform)
    except Exception:
        # The console is the only place where anyone looks.
        _emit(f"imageport sandbox: the boot was not played\n{traceback.format_exc()}")
    outcome.write_text(json.dumps({"outcome": ended}))


def _boot(disk: Path, serial: Path, deadline_seconds: float, platform: str) -> str:
    # The player is independent code; it is not needed to list or to stop machines.
    from imageport.sandbox.guest_player.play import play  # noqa: PLC0415

    if _starts_a_real_windows(disk, serial.with_name("loader.efi")):
        _emit(
            "imageport sandbox: the loader is Windows' own, which never powers off: not started\n"
        )
    else:
        firmware = boot_firmware(disk, serial, deadline_seconds)
        _emit(firmware.serial_text.rstrip("\n") + "\n")
        if not firmware.powered_off:
            _emit("imageport sandbox: firmware found no loader that powers off\n")
            return "hang"
    # In the machine's own folder: whoever clears that away also unmounts what is left of a boot
    # that was cut off, and a folder of disks holds disks only.
    played = play(disk, "", platform=platform, work=serial.parent)
    _emit(played.console_text)
    return played.outcome


def _starts_a_real_windows(disk: Path, scratch: Path) -> bool:
    """Tell an operator's own image, whose loader would go on to boot Windows, from the sample."""
    from imageport.sandbox.guest_player.disk import read_esp_file, read_table  # noqa: PLC0415

    table = read_table(disk)
    esp = table.esp() if table is not None else None
    if esp is None or not read_esp_file(disk, esp, "EFI/Boot/bootx64.efi", scratch):
        return False
    return SAMPLE_MARK not in scratch.read_bytes()


def _switched_off(_signal: int, _frame: FrameType | None) -> None:
    raise SystemExit(1)


def _emit(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), sys.argv[4])
