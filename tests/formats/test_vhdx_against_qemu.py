"""The second opinion: what qemu writes we read, what we write qemu reads, byte for byte.

Recipe: random writes at odd places (`layout`), put into a raw file, a VHDX by qemu-io and a VHDX by
our writer; all must hold the same bytes.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from imageport.formats.opening import open_disk
from imageport.formats.vhdx import VhdxDisk
from imageport.formats.vhdx_writer import VhdxWriter
from imageport.model import MIB, ExtentState
from imageport.storage.local import LocalFolder

SIZE = 150 * MIB + 7 * 512


def qemu(*arguments: str | Path, folder: LocalFolder) -> str:
    command = [str(argument) for argument in arguments]
    done = subprocess.run(command, cwd=folder.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def layout(seed: int, *, sector_bytes: int = 512) -> dict[int, bytes]:
    dice = random.Random(seed)  # noqa: S311
    writes = {0: dice.randbytes(8192), SIZE - 512: dice.randbytes(512)}
    for _ in range(24):
        offset = dice.randrange(SIZE // sector_bytes - 300) * sector_bytes
        writes[offset] = dice.randbytes(dice.randrange(1, 300) * sector_bytes)
    # One that starts in the middle of a block and ends behind its border, whatever its size.
    writes[64 * MIB - 3 * 512] = dice.randbytes(8 * 512)
    return writes


def write_raw(folder: LocalFolder, writes: dict[int, bytes]) -> None:
    with folder.create("disk.raw") as file:
        file.set_size(SIZE)
        for offset, data in writes.items():
            file.write_at(offset, data)


def read_all(disk: VhdxDisk, piece: int) -> bytes:
    return b"".join(
        disk.read_at(at, min(piece, disk.size_bytes - at))
        for at in range(0, disk.size_bytes, piece)
    )


def assert_extents_tell_the_truth(disk: VhdxDisk) -> None:
    at = 0
    state = None
    for extent in disk.extents():
        assert extent.offset_bytes == at
        assert extent.state is not state
        at, state = extent.end_bytes, extent.state
        if state is not ExtentState.DATA:
            for _, data in disk.read_many([(extent.offset_bytes, extent.length_bytes)]):
                assert not any(data)
    assert at == disk.size_bytes


@pytest.mark.parametrize(
    "block_mib",
    [1, pytest.param(2, marks=pytest.mark.slow), 32, pytest.param(256, marks=pytest.mark.slow)],
)
def test_what_qemu_converts_we_read(folder: LocalFolder, block_mib: int) -> None:
    write_raw(folder, layout(block_mib))
    option = f"block_size={block_mib}M"
    qemu(
        *("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", option),
        *("disk.raw", "disk.vhdx"),
        folder=folder,
    )
    with open_disk(folder.open_read("disk.vhdx")) as disk:
        assert isinstance(disk, VhdxDisk)
        assert disk.block_bytes == block_mib * MIB
        size = disk.size_bytes
        wanted = (folder.root / "disk.raw").read_bytes().ljust(size, b"\0")
        pieces = b"".join(data for _, data in disk.read_many([(0, size)]))
        assert pieces == wanted
        assert_extents_tell_the_truth(disk)


@pytest.mark.parametrize("piece", [3 * MIB, 512 * 1001])
def test_reads_may_start_inside_a_block_and_end_in_another(folder: LocalFolder, piece: int) -> None:
    write_raw(folder, layout(3))
    qemu(
        *("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", "block_size=2M"),
        *("disk.raw", "disk.vhdx"),
        folder=folder,
    )
    with VhdxDisk(folder.open_read("disk.vhdx")) as disk:
        wanted = (folder.root / "disk.raw").read_bytes().ljust(disk.size_bytes, b"\0")
        assert read_all(disk, piece) == wanted


def test_blocks_that_qemu_wrote_out_of_order_are_found(folder: LocalFolder) -> None:
    qemu(
        "qemu-img",
        "create",
        "-q",
        "-f",
        "vhdx",
        "-o",
        "block_size=1M",
        "d.vhdx",
        "8M",
        folder=folder,
    )
    commands = []
    for value, block in enumerate((5, 1, 7, 0, 3), start=1):
        commands += ["-c", f"write -q -P {value} {block}M 1M"]
    commands += ["-c", "write -q -z 3M 64k", "-c", "write -q -P 0 6M 1M"]
    qemu("qemu-io", "-f", "vhdx", *commands, "d.vhdx", folder=folder)
    with VhdxDisk(folder.open_read("d.vhdx")) as disk:
        found = {block: set(disk.read_at(block * MIB, MIB)) for block in range(8)}
        assert found == {5: {1}, 1: {2}, 7: {3}, 0: {4}, 3: {0, 5}, 2: {0}, 4: {0}, 6: {0}}
        states = {
            at: {e.state for e in disk.extents() if e.offset_bytes <= at < e.end_bytes}
            for at in (0, 2 * MIB)
        }
        # qemu marks all blocks of a new disk ZERO unless told otherwise (block_state_zero).
        assert states == {0: {ExtentState.DATA}, 2 * MIB: {ExtentState.ZERO}}
        assert disk.read_at(4 * MIB - 1, 2 * MIB) == b"\5" + bytes(MIB) + b"\1" * (MIB - 1)


@pytest.mark.parametrize("block_mib", [1, 32, 256])
@pytest.mark.parametrize("seed", [1, 2])
def test_what_we_write_qemu_reads(folder: LocalFolder, block_mib: int, seed: int) -> None:
    writes = layout(seed)
    write_raw(folder, writes)
    with folder.create("ours.vhdx") as file:
        writer = VhdxWriter(file, SIZE, block_bytes=block_mib * MIB)
        for offset, data in writes.items():
            writer.write_at(offset, data)
        writer.finish()
    qemu("qemu-img", "check", "-f", "vhdx", "ours.vhdx", folder=folder)
    compared = qemu(
        *("qemu-img", "compare", "-f", "vhdx", "-F", "raw", "ours.vhdx", "disk.raw"),
        folder=folder,
    )
    assert "identical" in compared
    info = qemu("qemu-img", "info", "--output=json", "ours.vhdx", folder=folder)
    assert f'"virtual-size": {SIZE}' in info
    assert f'"cluster-size": {block_mib * MIB}' in info


def test_qemu_can_go_on_writing_what_we_wrote(folder: LocalFolder) -> None:
    with folder.create("ours.vhdx") as file:
        writer = VhdxWriter(file, SIZE)
        writer.write_at(40 * MIB, b"ours" * 1024)
        writer.finish()
    qemu(
        *("qemu-io", "-f", "vhdx", "-c", "write -q -P 9 1M 64k", "-c", "write -q -P 8 100M 1M"),
        "ours.vhdx",
        folder=folder,
    )
    with VhdxDisk(folder.open_read("ours.vhdx")) as disk:
        assert disk.read_at(40 * MIB, 4096) == b"ours" * 1024
        assert disk.read_at(MIB, 65536) == b"\x09" * 65536
        assert disk.read_at(100 * MIB, MIB) == b"\x08" * MIB


def test_a_fixed_disk_of_qemu_is_read(folder: LocalFolder) -> None:
    write_raw(folder, layout(9))
    qemu(
        *("qemu-img", "convert", "-f", "raw", "-O", "vhdx", "-o", "subformat=fixed"),
        *("disk.raw", "disk.vhdx"),
        folder=folder,
    )
    with VhdxDisk(folder.open_read("disk.vhdx")) as disk:
        wanted = (folder.root / "disk.raw").read_bytes().ljust(disk.size_bytes, b"\0")
        assert b"".join(data for _, data in disk.read_many([(0, disk.size_bytes)])) == wanted
        assert ExtentState.HOLE not in {extent.state for extent in disk.extents()}
