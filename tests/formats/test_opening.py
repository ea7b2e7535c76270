"""A disk is recognised by what it holds, never by its name."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from imageport.errors import BadDisk, UnsupportedDisk
from imageport.formats.opening import open_disk
from imageport.formats.raw import RawDisk
from imageport.formats.vhd import VhdDisk
from imageport.formats.vhdx import VhdxDisk
from imageport.model import MIB, Extent, ExtentState
from imageport.storage.byte_file import ByteFile
from imageport.storage.local import LocalFolder

InMemory = Callable[[bytes], ByteFile]


@pytest.mark.parametrize("name", ["gold.vhdx", "gold.raw", "gold"])
def test_the_name_does_not_matter(folder: LocalFolder, sound_vhdx: bytes, name: str) -> None:
    (folder.root / name).write_bytes(sound_vhdx)
    with open_disk(folder.open_read(name)) as disk:
        assert isinstance(disk, VhdxDisk)


@pytest.mark.parametrize("sector_bytes", [512, 4096])
def test_a_raw_disk_is_known_by_its_partition_table(in_memory: InMemory, sector_bytes: int) -> None:
    content = bytearray(MIB)
    content[sector_bytes : sector_bytes + 8] = b"EFI PART"
    with open_disk(in_memory(bytes(content))) as disk:
        assert isinstance(disk, RawDisk)
        assert disk.sector_bytes == sector_bytes


@pytest.mark.parametrize("format_name", ["vdi"])
def test_other_formats_are_named_not_taken_for_raw(folder: LocalFolder, format_name: str) -> None:
    command = ["qemu-img", "create", "-q", "-f", format_name, "disk", "8M"]
    subprocess.run(command, cwd=folder.root, check=True)
    with pytest.raises(UnsupportedDisk, match="it is a"):
        open_disk(folder.open_read("disk"))


@pytest.mark.parametrize("subformat", ["dynamic", "fixed"])
def test_a_vhd_is_known_by_its_footer(folder: LocalFolder, subformat: str) -> None:
    option = f"subformat={subformat},force_size=on"
    command = ["qemu-img", "create", "-q", "-f", "vpc", "-o", option, "disk", "8M"]
    subprocess.run(command, cwd=folder.root, check=True)
    with open_disk(folder.open_read("disk")) as disk:
        assert isinstance(disk, VhdDisk)
        assert disk.size_bytes == 8 * MIB


@pytest.mark.parametrize("content", [b"", b"x", b"MZ" + bytes(5000), bytes(MIB)])
def test_what_is_no_disk_is_refused_with_what_was_found(
    in_memory: InMemory, content: bytes
) -> None:
    with pytest.raises(BadDisk, match=f"found {len(content)} bytes") as caught:
        open_disk(in_memory(content))
    assert caught.value.hint


def test_a_raw_disk_that_ends_inside_a_sector_is_cut_short(in_memory: InMemory) -> None:
    with pytest.raises(BadDisk, match="multiple of 512"):
        open_disk(in_memory(bytes(510) + b"\x55\xaa" + bytes(100)))


def test_a_refused_file_is_closed(folder: LocalFolder) -> None:
    (folder.root / "x").write_bytes(b"no disk")
    with pytest.raises(BadDisk):
        open_disk(folder.open_read("x", deny_write=True))
    folder.open_write("x").close()  # would be locked if the reader were still open


def test_raw_extents_are_what_the_file_system_has_stored(folder: LocalFolder) -> None:
    with folder.create("x") as file:
        file.set_size(4 * MIB)
        file.write_at(0, bytes(510) + b"\x55\xaa")
        file.write_at(2 * MIB, b"d" * 65536)
    with open_disk(folder.open_read("x")) as disk:
        assert list(disk.extents()) == [
            Extent(0, 4096, ExtentState.DATA),
            Extent(4096, 2 * MIB - 4096, ExtentState.HOLE),
            Extent(2 * MIB, 65536, ExtentState.DATA),
            Extent(2 * MIB + 65536, 2 * MIB - 65536, ExtentState.HOLE),
        ]
        pieces = dict(disk.read_many([(2 * MIB - 10, 20), (4 * MIB - 1, 1)]))
        assert pieces == {2 * MIB - 10: bytes(10) + b"d" * 10, 4 * MIB - 1: b"\0"}
