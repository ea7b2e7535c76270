"""From partitions to a disk to a dynamic VHDX, with the programs of GPT fdisk and QEMU."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from imageport.sandbox.sample import recipe
from imageport.sandbox.sample.programs import run
from imageport.sandbox.sample.recipe import Partition

_COPY_BYTES = 4 * recipe.MIB
_BLOCK_BYTES = 32 * recipe.MIB
_ACTIVE_OR_NOT = {True: b"\x80", False: b"\0"}


def assemble_gpt(disk: Path, contents: Mapping[int, Path]) -> None:
    """Write a raw disk with the recipe's partitions; ``contents`` by partition number."""
    with disk.open("wb") as file:
        file.truncate(recipe.DISK_BYTES)
    arguments = ["--clear", f"--disk-guid={recipe.DISK_GUID}"]
    for part in recipe.PARTITIONS:
        last = (part.first + part.size) // 512 - 1
        arguments += [
            f"--new={part.number}:{part.first // 512}:{last}",
            f"--typecode={part.number}:{part.kind}",
            f"--partition-guid={part.number}:{part.guid}",
            f"--change-name={part.number}:{part.name}",
        ]
    run(["sgdisk", *arguments, disk])
    for part in recipe.PARTITIONS:
        if part.number in contents:
            copy_sparse(contents[part.number], disk, target_offset=part.first)


def assemble_mbr(disk: Path, contents: Sequence[tuple[Partition, Path]]) -> None:
    """Write a raw disk as BIOS machines have it: NTFS partitions, of which the first is active."""
    with disk.open("wb") as file:
        file.truncate(recipe.DISK_BYTES)
        entries = b"".join(
            _ACTIVE_OR_NOT[number == 0] + _mbr_entry(part)
            for number, (part, _) in enumerate(contents)
        )
        signature = recipe.MBR_SIGNATURE.to_bytes(4, "little") + b"\0\0"
        file.write(b"\xfa\xeb\xfe".ljust(440, b"\0") + signature + entries.ljust(64, b"\0"))
        file.write(b"\x55\xaa")
    for part, volume in contents:
        copy_sparse(volume, disk, target_offset=part.first)


def _mbr_entry(part: Partition) -> bytes:
    """Cylinders, heads and sectors out of range on both ends, as Windows writes them."""
    chs = b"\xfe\xff\xff"
    start, sectors = part.first // 512, part.size // 512
    sizes = start.to_bytes(4, "little") + sectors.to_bytes(4, "little")
    return chs + bytes.fromhex(part.kind) + chs + sizes


def data_ranges(path: Path) -> Iterator[tuple[int, int]]:
    """Yield (offset, length) of what the file system has allocated."""
    with path.open("rb") as file:
        end, at = os.fstat(file.fileno()).st_size, 0
        while at < end:
            try:
                at = os.lseek(file.fileno(), at, os.SEEK_DATA)
            except OSError:  # ENXIO: only a hole is left
                return
            stop = os.lseek(file.fileno(), at, os.SEEK_HOLE)
            yield at, stop - at
            at = stop


def copy_sparse(source: Path, target: Path, *, target_offset: int = 0) -> None:
    """Copy the allocated ranges into an existing file, zeros included, holes left out."""
    with source.open("rb") as reader, target.open("r+b") as writer:
        for offset, length in data_ranges(source):
            for at in range(offset, offset + length, _COPY_BYTES):
                piece = os.pread(reader.fileno(), min(_COPY_BYTES, offset + length - at), at)
                os.pwrite(writer.fileno(), piece, target_offset + at)


def clone_sparse(source: Path, target: Path) -> Path:
    """Copy a whole file to a new name, holes as holes."""
    with target.open("wb") as file:
        file.truncate(source.stat().st_size)
    copy_sparse(source, target)
    return target


def make_vhdx(disk: Path, vhdx: Path) -> None:
    """Convert to a dynamic VHDX in which written zeros are allocated blocks, as in a real vDisk."""
    # QEMU would mark what was never written as zeros; Hyper-V and PVS leave it "not present".
    options = f"subformat=dynamic,block_size={recipe.VHDX_BLOCK},block_state_zero=off"
    run(["qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", options, disk, vhdx])
    commands = [
        part
        for block in sorted(_written_zero_blocks(disk))
        for part in ("-c", f"write -q -P 0 {block * _BLOCK_BYTES} {_BLOCK_BYTES}")
    ]
    if commands:
        # The conversion drops blocks of zeros.
        run(["qemu-io", "-f", "vhdx", *commands, vhdx])


def _written_zero_blocks(disk: Path) -> set[int]:
    zero, other = set[int](), set[int]()
    with disk.open("rb") as file:
        for offset, length in data_ranges(disk):
            at = offset
            while at < offset + length:
                block = at // _BLOCK_BYTES
                end = min(offset + length, (block + 1) * _BLOCK_BYTES, at + _COPY_BYTES)
                piece = os.pread(file.fileno(), end - at, at)
                (other if piece.count(0) != len(piece) else zero).add(block)
                at = end
    return zero - other
