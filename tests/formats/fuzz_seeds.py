"""Sound disks of every format, built on the spot, for the fuzzer to damage.

Recipe: 3 MiB in which a GPT of sgdisk lies, random bytes and text at three places, holes between.
qemu-img writes it in its formats; ours writes what qemu-img cannot.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.formats.vhdx_bytes import small_vhdx

KIB, MIB = 1024, 1024 * 1024
SIZE_BYTES = 3 * MIB
DICE = random.Random(1)  # noqa: S311 - contents
WRITES = {
    256 * KIB: DICE.randbytes(70 * KIB),
    MIB: b"golden image, " * 8000,
    SIZE_BYTES - 60 * KIB: DICE.randbytes(9 * KIB),
}


@dataclass(frozen=True, slots=True)
class Seed:
    """The files of one sound disk; the first one is the disk, the others are found beside it."""

    kind: str
    files: dict[str, bytes]

    @property
    def main(self) -> str:
        return next(iter(self.files))


def raw_bytes(folder: Path) -> bytes:
    """Return the disk that all seeds hold."""
    path = folder / "seed.raw"
    if not path.exists():
        with path.open("wb") as file:
            file.truncate(SIZE_BYTES)
            for offset, data in WRITES.items():
                file.seek(offset)
                file.write(data)
        run(["sgdisk", "-a", "1", "-n1:64:+1M", "-t1:ef00", "-n2:0:0", "seed.raw"], folder)
    return path.read_bytes()


def run(argv: list[str], folder: Path) -> None:
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)


def by_qemu(form: str, options: str = "", *flags: str) -> Callable[[Path], dict[str, bytes]]:
    """Return what makes a disk with qemu-img; its files in order, the one to open first."""

    def make(folder: Path) -> dict[str, bytes]:
        raw_bytes(folder)
        place = folder / f"{form}-{options}-{len(flags)}".replace("=", "-").replace(",", "-")
        place.mkdir()
        argv = ["qemu-img", "convert", "-f", "raw", "-O", form, *flags]
        argv += ["-o", options] if options else []
        run([*argv, str(folder / "seed.raw"), "disk.img"], place)
        names = sorted(path.name for path in place.iterdir())
        names.sort(key=lambda name: name != "disk.img")
        return {name: (place / name).read_bytes() for name in names}

    return make


SEEDS: dict[str, Callable[[Path], dict[str, bytes]]] = {
    "raw": lambda folder: {"disk.img": raw_bytes(folder)},
    "vhdx": lambda _folder: {"disk.img": small_vhdx()},
    "vhdx-qemu": by_qemu("vhdx", "block_size=1M"),
    "vhd-fixed": by_qemu("vpc", "subformat=fixed,force_size=on"),
    "vhd-dynamic": by_qemu("vpc", "subformat=dynamic,force_size=on"),
    "vmdk-arriving": by_qemu("vmdk", "subformat=streamOptimized"),
}
"""By kind; `open_disk` reads all of them."""


def build_seed(kind: str, folder: Path) -> Seed:
    return Seed(kind, SEEDS[kind](folder))
