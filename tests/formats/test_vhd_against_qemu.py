"""The second opinion: what qemu writes we read, what we write qemu reads, byte for byte.

Recipe: random writes at odd places, put into a raw file and, by qemu-img or our writers, in a VHD.
QEMU reads the size of an unknown creator by CHS: it is told to take the current size there. For
chains it is no judge: it opens a differencing VHD without its parent, and reads zeros.
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path

import pytest
from vhd_bytes import KIB, Recipe, make

from imageport.formats.opening import open_disk
from imageport.formats.vhd import VhdDisk
from imageport.formats.vhd_fixed_writer import FixedVhdWriter
from imageport.formats.vhd_writer import VhdWriter
from imageport.model import MIB
from imageport.storage.local import LocalFolder

SIZE = 40 * MIB + 7 * 512
"""Nothing that CHS can express."""
BY_CURRENT_SIZE = "driver=vpc,force_size_calc=current_size,file.filename="


def qemu(*arguments: str | Path, folder: LocalFolder) -> str:
    command = [str(argument) for argument in arguments]
    done = subprocess.run(command, cwd=folder.root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def layout(seed: int) -> dict[int, bytes]:
    dice = random.Random(seed)  # noqa: S311
    writes = {0: dice.randbytes(8192), SIZE - 512: dice.randbytes(512)}
    for _ in range(12):
        offset = dice.randrange(SIZE // 512 - 300) * 512
        writes[offset] = dice.randbytes(dice.randrange(1, 300) * 512)
    writes[16 * MIB - 3 * 512] = dice.randbytes(8 * 512)  # over the border of any block
    return writes


def write_raw(folder: LocalFolder, writes: dict[int, bytes]) -> None:
    with folder.create("disk.raw") as file:
        file.set_size(SIZE)
        for offset, data in writes.items():
            file.write_at(offset, data)


@pytest.mark.parametrize("options", ["subformat=dynamic", "subformat=fixed"])
@pytest.mark.parametrize("force", ["on", "off"])
def test_what_qemu_converts_we_read(folder: LocalFolder, options: str, force: str) -> None:
    write_raw(folder, layout(1))
    option = f"{options},force_size={force}"
    qemu("qemu-img", "convert", "-O", "vpc", "-o", option, "disk.raw", "x.vhd", folder=folder)
    with open_disk(folder.open_read("x.vhd")) as disk:
        assert isinstance(disk, VhdDisk)
        # Without force_size it rounds up to what CHS can express.
        assert disk.size_bytes == SIZE if force == "on" else SIZE < disk.size_bytes < SIZE + MIB
        wanted = (folder.root / "disk.raw").read_bytes().ljust(disk.size_bytes, b"\0")
        assert b"".join(data for _, data in disk.read_many([(0, disk.size_bytes)])) == wanted
        assert "notes" not in disk.details()


def test_blocks_that_qemu_wrote_out_of_order_are_found(folder: LocalFolder) -> None:
    command = ["qemu-img", "create", "-q", "-f", "vpc", "-o", "force_size=on", "d.vhd", "16M"]
    qemu(*command, folder=folder)
    commands = []
    for value, block in enumerate((5, 1, 7, 0, 3), start=1):
        commands += ["-c", f"write -q -P {value} {2 * block}M 2M"]
    qemu("qemu-io", "-f", "vpc", *commands, "d.vhd", folder=folder)
    with open_disk(folder.open_read("d.vhd")) as disk:
        found = {block: set(disk.read_at(block * 2 * MIB, 2 * MIB)) for block in range(8)}
        assert found == {5: {1}, 1: {2}, 7: {3}, 0: {4}, 3: {5}, 2: {0}, 4: {0}, 6: {0}}
        assert disk.read_at(4 * MIB - 1, 2 * MIB + 2) == b"\2" + bytes(2 * MIB) + b"\5"


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("block", [512 * KIB, 2 * MIB, 16 * MIB, None])
def test_what_we_write_qemu_reads(folder: LocalFolder, block: int | None, seed: int) -> None:
    writes = layout(seed)
    write_raw(folder, writes)
    with folder.create("ours.vhd") as file:
        writer: VhdWriter | FixedVhdWriter = (
            VhdWriter(file, SIZE, block_bytes=block) if block else FixedVhdWriter(file, SIZE)
        )
        for offset, data in writes.items():
            writer.write_at(offset, data)
        writer.finish()
    # By its own rules: it must take the size from the current size by the creator alone.
    compare = ["qemu-img", "compare", "-f", "vpc", "-F", "raw", "ours.vhd", "disk.raw"]
    assert "identical" in qemu(*compare, folder=folder)
    info = json.loads(
        qemu("qemu-img", "info", "-f", "vpc", "--output=json", "ours.vhd", folder=folder)
    )
    assert info["virtual-size"] == SIZE
    assert info.get("cluster-size", None) == block


def test_qemu_can_go_on_writing_what_we_wrote(folder: LocalFolder) -> None:
    with folder.create("ours.vhd") as file:
        writer = VhdWriter(file, SIZE)
        writer.write_at(4 * MIB, b"ours" * 1024)
        writer.finish()
    commands = ["-c", "write -q -P 9 4M 64k", "-c", "write -q -P 8 30M 1M"]
    qemu("qemu-io", "-f", "vpc", *commands, "ours.vhd", folder=folder)
    with open_disk(folder.open_read("ours.vhd")) as disk:
        assert disk.read_at(4 * MIB, 65536 + 512) == b"\x09" * 65536 + bytes(512)
        assert disk.read_at(30 * MIB, MIB) == b"\x08" * MIB
        assert "notes" not in disk.details()


def test_a_disk_of_an_unknown_creator_is_what_qemu_reads_by_its_current_size(
    folder: LocalFolder,
) -> None:
    whole = {block: [(0, 1024)] for block in (0, 3, 7)}
    made = make(Recipe(4 * MIB - 512, blocks=whole, order=[7, 0, 3], geometry=(4, 16, 63)))
    (folder.root / "x.vhd").write_bytes(made.content)
    (folder.root / "x.raw").write_bytes(made.guest)
    right = f"{BY_CURRENT_SIZE}x.vhd"
    compare = ["qemu-img", "compare", "--image-opts", right]
    assert "identical" in qemu(*compare, "driver=raw,file.filename=x.raw", folder=folder)
    with open_disk(folder.open_read("x.vhd")) as disk:
        assert disk.read_at(0, disk.size_bytes) == made.guest
