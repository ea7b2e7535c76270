"""Real firmware on a prepared disk: does it find disk, partition and loader with empty variables?

OVMF in QEMU with an NVMe drive, as the cloud's machines have it. The disk is never written
(``snapshot=on``), the variables are a fresh copy, and nothing is connected to a network.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
import struct
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from imageport.errors import EngineFailed, FileMissing, MissingTool

QEMU = "qemu-system-x86_64"
MEMORY_MIB = 256
"""OVMF of 2023 and later does not start in less than 128 MiB."""
_FIRMWARE = (
    # Debian 12 and Ubuntu 24.04; the 2 MiB builds are gone from Ubuntu 24.04.
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    # Fedora and relatives
    ("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
)
_MAGIC_FORMATS = ((b"vhdxfile", "vhdx"), (b"QFI\xfb", "qcow2"))
_ESCAPES = re.compile(r"\x1b\[[0-9;=?]*[A-Za-z]")
_PROBE_SECONDS = 10.0
_PROBE_PORT, _PROBE_VALUE = 0x501, 0x31


@dataclass(frozen=True, slots=True)
class FirmwareResult:
    """What came of one start: the serial port's text without escape sequences, and how it ended."""

    serial_text: str
    seconds: float
    powered_off: bool
    """The guest switched itself off; False when the deadline ended it or it asked for a reset."""


@functools.cache
def probe_kvm() -> bool:
    """Tell whether KVM really runs code here; the device may exist and fail.

    Some nested machines offer /dev/kvm but cannot run what real firmware starts with. So a ROM of
    a few instructions does the same: protected mode, floating point, then an exit by a known code.
    """
    return Path("/dev/kvm").exists() and runs_code("kvm")


def runs_code(accelerator: str) -> bool:
    """Tell whether QEMU gets through the probing ROM with ``kvm`` or ``tcg``."""
    program = shutil.which(QEMU)
    if program is None:
        return False
    with tempfile.TemporaryDirectory(prefix="imageport-probe-") as folder:
        rom = Path(folder) / "probe.rom"
        rom.write_bytes(_probe_rom())
        argv = [
            *("timeout", "--kill-after=1", str(_PROBE_SECONDS), program),
            *("-machine", f"q35,accel={accelerator}", "-m", "32", "-nodefaults"),
            *("-display", "none", "-no-reboot", "-bios", str(rom), "-qmp", "stdio"),
            *("-device", f"isa-debug-exit,iobase={_PROBE_PORT:#x},iosize=1"),
        ]
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        with process:
            if process.stdin is None or process.stdout is None:
                return False
            try:
                process.stdin.write(b'{"execute":"qmp_capabilities"}\n')
                process.stdin.flush()
            except BrokenPipeError:
                return False  # it ended at once: no right to use the device
            # An emulation failure pauses the machine; waiting longer would show nothing new.
            if any(b'"STOP"' in line for line in process.stdout):
                process.terminate()
        return process.returncode == _PROBE_VALUE << 1 | 1


def _probe_rom() -> bytes:
    """Return 64 KiB that end at 4 GiB, where the processor starts in real mode."""
    code_at, table_at = 0xF000, 0xF080
    top = 0xFFFF0000
    real = b"\xfa\x2e\x66\x0f\x01\x16" + struct.pack("<H", table_at)  # cli; lgdt cs:[table]
    real += b"\x0f\x20\xc0\x66\x83\xc8\x01\x0f\x22\xc0"  # cr0 |= 1
    real += b"\x66\xea" + struct.pack("<IH", top + code_at + len(real) + 8, 0x10)  # far jump
    protected = b"\x9b\xdb\xe3\x66\xba" + struct.pack("<H", _PROBE_PORT)  # finit; mov dx, port
    protected += bytes((0xB0, _PROBE_VALUE)) + b"\xee\xf4\xeb\xfd"  # mov al; out; halt for ever
    segments = struct.pack("<QQQ", 0, 0x00CF93000000FFFF, 0x00CF9B000000FFFF)
    table = struct.pack("<HIxx", len(segments) - 1, top + table_at + 8) + segments
    start = b"\xe9" + struct.pack("<h", code_at - 0xFFF3)
    rom = bytearray(0x10000)
    for at, part in ((code_at, real + protected), (table_at, table), (0xFFF0, start)):
        rom[at : at + len(part)] = part
    return bytes(rom)


def boot_firmware(disk: Path, serial: Path, deadline_seconds: float = 120.0) -> FirmwareResult:
    """Start ``disk`` (raw, VHDX or qcow2) with empty variables until it powers off.

    Args:
        disk: the image; only read.
        serial: file that receives the serial port's bytes.
        deadline_seconds: after this the machine is ended. Emulated, OVMF alone takes about 10 s.

    Raises:
        MissingTool: no QEMU or no OVMF on this machine.
        FileMissing: there is no such disk.
        EngineFailed: QEMU did not start the machine.
    """
    if not disk.exists():
        raise FileMissing(f"Cannot boot '{disk}': there is no such file.")
    code, variables = _firmware_files()
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="imageport-firmware-") as folder:
        nvram = Path(folder) / "variables.fd"
        shutil.copyfile(variables, nvram)
        argv = _machine(code, nvram, disk, serial)
        events = _run_machine(argv, deadline_seconds)
    raw = serial.read_bytes() if serial.exists() else b""
    text = _ESCAPES.sub("", raw.decode("utf-8", "replace")).replace("\r", "")
    off = any(
        event.get("event") == "SHUTDOWN"
        and dict(event.get("data") or {}).get("reason") == "guest-shutdown"  # type: ignore[call-overload]
        for event in events
    )
    return FirmwareResult(text, time.monotonic() - started, off)


def _firmware_files() -> tuple[Path, Path]:
    for code, variables in _FIRMWARE:
        if Path(code).exists() and Path(variables).exists():
            return Path(code), Path(variables)
    raise MissingTool(
        "Cannot boot a disk: no OVMF firmware is installed.", hint="Install the package 'ovmf'."
    )


def _machine(code: Path, nvram: Path, disk: Path, serial: Path) -> list[str]:
    program = shutil.which(QEMU)
    if program is None:
        raise MissingTool(
            f"Cannot boot '{disk}': {QEMU} is not installed.",
            hint="Install the package 'qemu-system-x86'.",
        )
    accelerator = "kvm" if probe_kvm() else "tcg"
    return [
        *(program, "-machine", f"q35,accel={accelerator}", "-m", str(MEMORY_MIB)),
        *("-nodefaults", "-display", "none", "-nic", "none", "-no-reboot"),
        *("-drive", f"if=pflash,unit=0,format=raw,readonly=on,file={_quoted(code)}"),
        *("-drive", f"if=pflash,unit=1,format=raw,file={_quoted(nvram)}"),
        *("-drive", f"if=none,id=disk,format={disk_format(disk)},snapshot=on,file={_quoted(disk)}"),
        *("-device", "nvme,drive=disk,serial=imageport"),
        *("-serial", f"file:{serial}", "-qmp", "stdio"),
    ]


def _run_machine(argv: list[str], deadline_seconds: float) -> list[dict[str, object]]:
    """Run QEMU until it ends or the deadline; return what it said on QMP."""
    # timeout(1) ends the machine also when this process is killed meanwhile.
    guard = ["timeout", "--kill-after=2", str(deadline_seconds + 5)]
    process = subprocess.Popen(
        [*guard, *argv],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    late = False
    try:
        output, errors = process.communicate('{"execute":"qmp_capabilities"}\n', deadline_seconds)
    except subprocess.TimeoutExpired:
        late = True
        process.terminate()
        output, errors = process.communicate()
    except BaseException:
        process.terminate()  # an interrupt must not leave a machine behind
        process.wait()
        raise
    if process.returncode != 0 and not late:
        raise EngineFailed(
            f"Cannot run '{QEMU}': exit code {process.returncode}: {errors.strip()[-500:]}",
            log=errors[-2000:],
        )
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


def disk_format(disk: Path) -> str:
    """Return QEMU's name of the image's format, by content."""
    with disk.open("rb") as file:
        head = file.read(8)
    return next((name for magic, name in _MAGIC_FORMATS if head.startswith(magic)), "raw")


def _quoted(path: Path) -> str:
    return str(path).replace(",", ",,")  # QEMU's own escape in option lists
