"""Sound disks of every format, built on the spot, for the fuzzer to damage.

Recipe: 3 MiB in which a GPT of sgdisk lies, random bytes and text at three places, holes between.
qemu-img writes it in its formats; ours writes what qemu-img cannot.
"""

from __future__ import annotations

import random
import struct
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imageport.storage.memory import MemoryFolder
from tests.formats.chain_bytes import (
    BAT,
    FULL,
    METADATA,
    PARTIAL,
    UNMAPPED,
    ZERO,
    Layer,
    write_layer,
)
from tests.formats.log_bytes import crashed
from tests.formats.vhdx_bytes import small_vhdx
from tests.formats.vmdk_bytes import GRAIN_SECTORS, StreamRecipe, grain

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


def vhd_chain(folder: Path) -> dict[str, bytes]:
    """Return a differencing VHD and its parent: qemu-img's, and a copy of it that names it.

    [VHD 1.0]: footer (at the end, a copy at 0) with type at 60, id at 68; dynamic header at 512
    with the parent's id at 40 and name at 64; a bitmap of a sector before each block.
    """
    parent = folder / "parent.vhd"
    qemu = ["qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on"]
    raw_bytes(folder)
    run([*qemu, "seed.raw", parent.name], folder)
    base = parent.read_bytes()
    child = bytearray(base)
    for footer in (0, len(child) - 512):
        struct.pack_into(">I", child, footer + 60, 4)
        child[footer + 68 : footer + 84] = uuid.UUID(int=77).bytes
    child[512 + 40 : 512 + 56] = base[68:84]
    child[512 + 64 : 512 + 84] = parent.name.encode("utf-16-be")
    bits = random.Random(2)  # noqa: S311 - contents
    table, entries = struct.unpack_from(">Q8xI", child, 512 + 16)[0], 2
    for place in struct.unpack_from(f">{entries}I", child, table):
        child[place * 512 : place * 512 + 512] = bits.randbytes(512)
    mend_vhd(child)
    return {"disk.img": bytes(child), parent.name: base}


def mend_vhd(content: bytearray) -> None:
    """Make the checksums of both footers and of the dynamic header right."""
    places = [(len(content) - 512, 512, 64), (0, 512, 64), (512, 1024, 36)]
    for offset, length, at in places:
        structure = content[offset : offset + length]
        if len(structure) == length and structure.startswith((b"conectix", b"cxsparse")):
            structure[at : at + 4] = bytes(4)
            struct.pack_into(">I", content, offset + at, ~sum(structure) & 0xFFFFFFFF)


def avhdx_chain(_folder: Path) -> dict[str, bytes]:
    """Return the newest file of a chain of three, its parents, and all states of blocks in it."""
    store = MemoryFolder()
    size = SIZE_BYTES + 5 * 512
    every = {0: (FULL, ()), 1: (FULL, ()), 3: (FULL, ())}
    base = write_layer(store, "gold.vhdx", Layer(size, blocks=every))
    middle = Layer(size, blocks={0: (PARTIAL, range(5, 900)), 1: (ZERO, ()), 2: (UNMAPPED, ())})
    first = write_layer(store, "gold.1.avhdx", middle, parent=base)
    top = Layer(size, blocks={0: (PARTIAL, (0, 7, 8, 2047)), 3: (PARTIAL, (1, 4))})
    newest = write_layer(store, "gold.2.avhdx", top, parent=first)
    names = [newest.name, first.name, base.name]
    return {name: store.read_bytes(name, 1 << 30) for name in names}


def vhdx_with_log(_folder: Path) -> dict[str, bytes]:
    """Return a VHDX whose table and metadata are in its log only, which wraps."""
    store = MemoryFolder()
    layer = Layer(SIZE_BYTES, blocks={0: (FULL, ()), 2: (FULL, ())})
    write_layer(store, "sound", layer)
    sound = store.read_bytes("sound", 1 << 30)
    pages = [BAT, METADATA, METADATA + 64 * KIB]
    return {"disk.img": crashed(sound, pages, first=MIB - 12 * KIB)}


def vmdk_of_vsphere(_folder: Path) -> dict[str, bytes]:
    """Return a stream with tables behind the grains and a footer, over two grain tables."""
    grains = {at: grain(at) for at in (0, 1, 5, 511, 512, 700)}
    return {"disk.img": StreamRecipe(grains, 1000 * GRAIN_SECTORS).build()}


SEEDS: dict[str, Callable[[Path], dict[str, bytes]]] = {
    "raw": lambda folder: {"disk.img": raw_bytes(folder)},
    "vhdx": lambda _folder: {"disk.img": small_vhdx()},
    "vhdx-qemu": by_qemu("vhdx", "block_size=1M"),
    "vhdx-log": vhdx_with_log,
    "vhd-fixed": by_qemu("vpc", "subformat=fixed,force_size=on"),
    "vhd-dynamic": by_qemu("vpc", "subformat=dynamic,force_size=on"),
    "vhd-chain": vhd_chain,
    "vhd-arriving": by_qemu("vpc", "force_size=on,subformat=dynamic"),
    "avhdx-chain": avhdx_chain,
    "vmdk-sparse": by_qemu("vmdk", "subformat=monolithicSparse"),
    "vmdk-split": by_qemu("vmdk", "subformat=twoGbMaxExtentSparse"),
    "vmdk-flat": by_qemu("vmdk", "subformat=monolithicFlat"),
    "vmdk-split-flat": by_qemu("vmdk", "subformat=twoGbMaxExtentFlat"),
    "vmdk-stream": by_qemu("vmdk", "subformat=streamOptimized", "-p"),
    "qcow2": by_qemu("qcow2"),
    "qcow2-zlib": by_qemu("qcow2", "", "-c"),
    "qcow2-small": by_qemu("qcow2", "compat=0.10,cluster_size=4096"),
    "vmdk-vsphere": vmdk_of_vsphere,
    "vmdk-vsphere-arriving": vmdk_of_vsphere,
    "vmdk-arriving": by_qemu("vmdk", "subformat=streamOptimized"),
}
"""By kind; `open_disk` reads all of them."""


def build_seed(kind: str, folder: Path) -> Seed:
    return Seed(kind, SEEDS[kind](folder))
