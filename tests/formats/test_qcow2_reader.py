"""qcow2 files of qemu-img, sound, odd and damaged."""

from __future__ import annotations

import random
import struct
import subprocess
import tracemalloc
import zlib
from collections.abc import Callable

import pytest

from imageport.errors import BadDisk, ImageportError, UnsupportedDisk
from imageport.formats.opening import open_disk
from imageport.formats.qcow2 import Qcow2Disk
from imageport.model import MIB, ExtentState
from imageport.storage.byte_file import ByteFile
from imageport.storage.local import LocalFolder
from tests.formats.test_vmdk_reader import same_by_every_way, write_raw

InMemory = Callable[[bytes], ByteFile]


def qemu(folder: LocalFolder, *arguments: str) -> None:
    subprocess.run(arguments, cwd=folder.root, check=True, capture_output=True)


def convert(folder: LocalFolder, *options: str) -> None:
    qemu(folder, "qemu-img", "convert", "-f", "raw", "-O", "qcow2", *options, "x.raw", "x.qcow2")


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["-c"],
        ["-o", "compat=0.10"],
        ["-c", "-o", "cluster_size=2M"],
        ["-c", "-o", "cluster_size=4k"],
        ["-o", "cluster_size=512"],
        ["-o", "preallocation=metadata"],
    ],
    ids=lambda options: " ".join(options) or "plain",
)
def test_what_qemu_writes_is_read(folder: LocalFolder, options: list[str]) -> None:
    wanted = write_raw(folder.root / "x.raw", 20 + len(options))
    convert(folder, *options)
    with open_disk(folder.open_read("x.qcow2")) as disk:
        assert isinstance(disk, Qcow2Disk)
        same_by_every_way(disk, wanted)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("options", [[], ["-c"]], ids=["plain", "compressed"])
def test_random_layouts_are_read(folder: LocalFolder, options: list[str], seed: int) -> None:
    wanted = write_raw(folder.root / "x.raw", 200 + seed)
    convert(folder, *options)
    with open_disk(folder.open_read("x.qcow2")) as disk:
        same_by_every_way(disk, wanted)


def test_plain_and_compressed_clusters_and_zeros_lie_side_by_side(folder: LocalFolder) -> None:
    write_raw(folder.root / "x.raw", 31)
    convert(folder, "-c")
    writes = ["write -q -P 5 1M 192k", "write -q -z 3M 128k", "write -q -P 9 2M 1k"]
    commands = [part for one in writes for part in ("-c", one)]
    qemu(folder, "qemu-io", "-f", "qcow2", *commands, "x.qcow2")
    qemu(folder, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", "x.qcow2", "y.raw")
    with open_disk(folder.open_read("x.qcow2")) as disk:
        same_by_every_way(disk, (folder.root / "y.raw").read_bytes())
        zeros = [e for e in disk.extents() if e.offset_bytes <= 3 * MIB < e.end_bytes]
        assert [extent.state for extent in zeros] == [ExtentState.ZERO]


def test_the_active_layer_counts_and_not_an_internal_snapshot(folder: LocalFolder) -> None:
    qemu(folder, "qemu-img", "create", "-q", "-f", "qcow2", "x.qcow2", "4M")
    qemu(folder, "qemu-io", "-f", "qcow2", "-c", "write -q -P 1 1M 64k", "x.qcow2")
    qemu(folder, "qemu-img", "snapshot", "-c", "before", "x.qcow2")
    qemu(folder, "qemu-io", "-f", "qcow2", "-c", "write -q -P 2 1M 64k", "x.qcow2")
    with open_disk(folder.open_read("x.qcow2")) as disk:
        assert set(disk.read_at(MIB, 65536)) == {2}
        assert disk.details()["internal_snapshots"] == 1


def test_what_needs_another_file_or_tool_is_refused_by_name(folder: LocalFolder) -> None:
    qemu(folder, "qemu-img", "create", "-q", "-f", "raw", "base", "4M")
    create = ["qemu-img", "create", "-q", "-f", "qcow2"]
    kinds: dict[str, tuple[list[str], str]] = {
        "backing": ([*create, "-b", "base", "-F", "raw", "backing"], "backing file"),
        "data": ([*create, "-o", "data_file=other", "data", "4M"], "external data file"),
        "extended": ([*create, "-o", "extended_l2=on", "extended", "4M"], "extended L2"),
        "zstd": ([*create, "-o", "compression_type=zstd", "zstd", "4M"], "zstd"),
    }
    for name, (command, message) in kinds.items():
        qemu(folder, *command)
        with pytest.raises(UnsupportedDisk, match=message) as caught:
            open_disk(folder.open_read(name), folder)
        assert caught.value.hint
        folder.open_write(name).close()  # would be locked if the reader were still open


SIZE = 4 * MIB


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return 4 MiB in clusters of 4 KiB, of which three are compressed and one is not."""
    folder = LocalFolder(tmp_path_factory.mktemp("qcow2"))
    content = bytearray(SIZE)
    for at in (0, 4096, 2 * MIB):
        content[at : at + 4096] = (b"%09d" % at) * 456
    (folder.root / "x.raw").write_bytes(content[:SIZE])
    convert(folder, "-c", "-o", "cluster_size=4k")
    qemu(folder, "qemu-io", "-f", "qcow2", "-c", "write -q -P 7 3M 4k", "x.qcow2")
    return (folder.root / "x.qcow2").read_bytes()


def tables(content: bytes) -> tuple[int, int]:
    """Return where the L1 table and the first L2 table lie."""
    (l1,) = struct.unpack_from(">Q", content, 40)
    (l2,) = struct.unpack_from(">Q", content, l1)
    return l1, l2 & 0x00FFFFFFFFFFFE00


HEADER_DAMAGE = {
    "version 4": (4, struct.pack(">I", 4), UnsupportedDisk, "version 4"),
    "cluster bits": (20, struct.pack(">I", 22), BadDisk, "cluster bits at offset 20"),
    "no size": (24, struct.pack(">Q", 0), BadDisk, "virtual disk size at offset 24"),
    "a size of no sectors": (24, struct.pack(">Q", 1000), BadDisk, "virtual disk size"),
    "2 EiB": (24, struct.pack(">Q", 2**61), BadDisk, "virtual disk size"),
    "a long L1 table": (24, struct.pack(">Q", 2**46), BadDisk, "L1 table's entries"),
    "few entries": (36, struct.pack(">I", 1), BadDisk, "L1 table's entries at offset 36"),
    "L1 unaligned": (40, struct.pack(">Q", 4097), BadDisk, "L1 table's offset at offset 40"),
    "no L1": (40, struct.pack(">Q", 0), BadDisk, "L1 table's offset at offset 40"),
    "L1 outside": (40, struct.pack(">Q", 2**40), BadDisk, "L1 table at offset"),
    "encrypted": (32, struct.pack(">I", 2), UnsupportedDisk, "encrypted"),
    "dirty": (72, struct.pack(">Q", 1), UnsupportedDisk, "marked dirty"),
    "corrupt": (72, struct.pack(">Q", 2), UnsupportedDisk, "marked corrupt"),
    "unknown": (72, struct.pack(">Q", 1 << 20), UnsupportedDisk, "not known here"),
    "header length": (100, struct.pack(">I", 8), BadDisk, "header length at offset 100"),
}


@pytest.mark.parametrize("name", HEADER_DAMAGE)
def test_a_damaged_header_is_named_with_its_offset(
    in_memory: InMemory, sound: bytes, name: str
) -> None:
    at, new, error, message = HEADER_DAMAGE[name]
    with pytest.raises(error, match=message):
        open_disk(in_memory(sound[:at] + new + sound[at + len(new) :]))


TABLE_DAMAGE = {
    "L1 reserved bits": (0, 0, 1 << 58, "L1 entry 0"),
    "L1 unaligned": (0, 0, 1 << 9, "L1 entry 0"),
    "L1 outside": (0, 0, 1 << 50, "L1 entry 0"),
    "L2 reserved bits": (1, 768 % 512, 1 << 3, "L2 entry of cluster"),
    "L2 unaligned": (1, 5, 0x5200, "L2 entry of cluster 5"),
    "L2 outside": (1, 5, 1 << 50, "cluster 5 at offset"),
    "compressed outside": (1, 5, (1 << 62) | (1 << 44), "cluster 5 at offset"),
    "compressed bytes": (1, 5, (1 << 62) | 0x1000, "compressed cluster at offset"),
}


@pytest.mark.parametrize("name", TABLE_DAMAGE)
def test_a_damaged_table_is_named_with_its_offset(
    in_memory: InMemory, sound: bytes, name: str
) -> None:
    table, index, value, message = TABLE_DAMAGE[name]
    content = bytearray(sound)
    at = tables(sound)[table] + 8 * index
    (old,) = struct.unpack_from(">Q", content, at)
    keep = old & 0x00FFFFFFFFFFFE00 if table == 0 and value > 1 << 56 else 0
    struct.pack_into(">Q", content, at, value | keep)
    with pytest.raises(BadDisk, match=message), open_disk(in_memory(bytes(content))) as disk:
        list(disk.read_many([(0, disk.size_bytes)]))


def test_a_cluster_must_inflate_to_a_whole_cluster(in_memory: InMemory, sound: bytes) -> None:
    packer = zlib.compressobj(wbits=-12)
    short = packer.compress(bytes(4095)) + packer.flush()
    (entry,) = struct.unpack_from(">Q", sound, tables(sound)[1])
    place = entry & 0xFFFFFFFF
    with open_disk(in_memory(sound[:place] + short + sound[place + len(short) :])) as disk:
        assert disk.read_at(4096, 9) == b"000004096"
        with pytest.raises(BadDisk, match="found 4095 bytes"):
            disk.read_at(0, 512)


def test_two_l1_entries_for_one_table_are_refused(in_memory: InMemory, sound: bytes) -> None:
    """A small file could otherwise make a disk of 64 TiB to be read."""
    content = bytearray(sound)
    l1, _ = tables(sound)
    content[l1 + 8 : l1 + 16] = content[l1 : l1 + 8]
    with pytest.raises(BadDisk, match="two entries"):
        open_disk(in_memory(bytes(content)))


def test_many_clusters_in_one_place_are_no_disk(folder: LocalFolder) -> None:
    """8192 entries of an L2 table for the same 64 KiB: half a GiB out of 400 KiB."""
    qemu(folder, "qemu-img", "create", "-f", "qcow2", "x.qcow2", "512M")
    qemu(folder, "qemu-io", "-f", "qcow2", "-c", "write -P 7 0 64k", "x.qcow2")
    content = bytearray((folder.root / "x.qcow2").read_bytes())
    (l1,) = struct.unpack_from(">Q", content, 40)
    (l2,) = struct.unpack_from(">Q", content, l1)
    l2 &= 2**56 - 512
    content[l2 : l2 + 65536] = content[l2 : l2 + 8] * 8192
    (folder.root / "x.qcow2").write_bytes(content)
    with (
        open_disk(folder.open_read("x.qcow2")) as disk,
        pytest.raises(BadDisk, match="needed a place of its own for each"),
    ):
        list(disk.extents())


def test_a_zero_mark_in_version_2_is_damage(folder: LocalFolder, in_memory: InMemory) -> None:
    write_raw(folder.root / "x.raw", 41)
    convert(folder, "-o", "compat=0.10")
    content = bytearray((folder.root / "x.qcow2").read_bytes())
    struct.pack_into(">Q", content, tables(bytes(content))[1], 1)
    disk = open_disk(in_memory(bytes(content)))
    with pytest.raises(BadDisk, match="L2 entry of cluster 0"):
        disk.read_at(0, 512)
    disk.close()


def test_every_cut_is_refused_or_found_when_read(in_memory: InMemory, sound: bytes) -> None:
    for cut in range(4, len(sound) - 4096, 487):
        with pytest.raises(BadDisk), open_disk(in_memory(sound[:cut])) as disk:
            list(disk.read_many([(0, disk.size_bytes)]))


def test_a_claim_of_16_tib_takes_little_memory(folder: LocalFolder) -> None:
    qemu(folder, "qemu-img", "create", "-q", "-f", "qcow2", "x.qcow2", "16T")
    file = folder.open_read("x.qcow2")
    tracemalloc.start()
    try:
        with open_disk(file) as disk:
            assert [extent.state for extent in disk.extents()] == [ExtentState.HOLE]
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB
    finally:
        tracemalloc.stop()


def test_whatever_is_overwritten_only_our_errors_come_out(
    in_memory: InMemory, sound: bytes
) -> None:
    dice = random.Random(9)  # noqa: S311 - damage
    l1, l2 = tables(sound)
    survived = 0
    for _ in range(150):
        content = bytearray(sound)
        for _ in range(dice.randrange(1, 4)):
            start = dice.choice([0, l1, l2, dice.randrange(len(content))])
            at = min(start + dice.randrange(112), len(content) - 8)
            content[at] = dice.choice([0, 1, 0x40, 0x80, 0xFF, dice.randrange(256)])
        try:
            with open_disk(in_memory(bytes(content))) as disk:
                assert sum(e.length_bytes for e in disk.extents()) == disk.size_bytes
                list(disk.read_many([(0, min(disk.size_bytes, 4 * MIB))]))
        except ImageportError:
            continue
        survived += 1
    assert 5 < survived < 145
