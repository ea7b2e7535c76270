"""A stream-optimized VMDK as it arrives: all of it, in order, compared with its tables."""

from __future__ import annotations

import struct
import subprocess
import threading
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.errors import BadDisk, ExportInterrupted, ImageportError, UnsupportedDisk
from imageport.formats import _vmdk_layout as layout
from imageport.formats.vmdk_stream import VmdkStream
from imageport.model import MIB
from tests.formats.arriving import Arriving
from tests.formats.vmdk_bytes import STREAM_FLAGS, StreamRecipe, described, grain

SECTOR = 512
SMALL = 8  # sectors of a grain: small disks with several tables
GRAIN = SMALL * SECTOR
CAPACITY = 4396  # two tables, and a last grain that is not whole


def recipe(**changes: object) -> StreamRecipe:
    grains = {0: grain(1, GRAIN), 1: grain(2, GRAIN), 7: bytes(GRAIN), 512: grain(3, GRAIN)}
    facts = {"grains": grains | {549: grain(4, GRAIN)}, "capacity": CAPACITY}
    return StreamRecipe(**(facts | {"fields": {"grain_size": SMALL}} | changes))  # type: ignore[arg-type]


def wanted(made: StreamRecipe) -> bytes:
    content = bytearray(made.capacity * SECTOR)
    for number, data in made.grains.items():
        piece = data[: len(content) - number * GRAIN]
        content[number * GRAIN : number * GRAIN + len(piece)] = piece
    return bytes(content)


def received(content: bytes) -> bytes:
    """Return what a stream brings, once it has proved whole."""
    with VmdkStream(Arriving(content)) as stream:
        disk = bytearray(stream.size_bytes)
        end = 0
        for offset, data in stream.pieces():
            assert offset >= end
            assert len(data) <= MIB
            disk[offset : offset + len(data)] = data
            end = offset + len(data)
        assert end <= stream.size_bytes
        assert "grain tables" in stream.finish()
    return bytes(disk)


@pytest.mark.parametrize("tables_at_once", [False, True])
def test_what_was_sent_arrives(tables_at_once: bool) -> None:
    made = recipe(tables_at_once=tables_at_once)
    assert received(made.build()) == wanted(made)


def test_qemu_reads_the_same_from_what_these_tests_send(tmp_path: Path) -> None:
    made = recipe()
    (tmp_path / "x.vmdk").write_bytes(made.build())
    command = ["qemu-img", "convert", "-f", "vmdk", "-O", "raw", "x.vmdk", "x.raw"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "x.raw").read_bytes() == wanted(made)


@pytest.mark.parametrize("option", ["", ",zeroed_grain=on"])
def test_tables_in_front_of_the_grains_are_compared_too(tmp_path: Path, option: str) -> None:
    made = recipe()
    (tmp_path / "x.raw").write_bytes(wanted(made))
    command = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk"]
    command += ["-o", f"subformat=streamOptimized{option}", "x.raw", "x.vmdk"]
    subprocess.run(command, cwd=tmp_path, check=True)
    content = (tmp_path / "x.vmdk").read_bytes()
    assert received(content) == wanted(made)
    top = layout.SparseHeader.unpack(content[:SECTOR])
    assert top.directory != layout.DIRECTORY_AT_END
    end = len(content.rstrip(b"\0"))
    for cut in (top.overhead * SECTOR, end - SECTOR, end - 1):
        with pytest.raises(ExportInterrupted):
            received(content[:cut])
    table = (top.directory + 1) * SECTOR
    damaged = bytearray(content)
    damaged[table + 8 : table + 12] = damaged[table : table + 4]  # a grain that never comes
    with pytest.raises(BadDisk, match="other grains than those that came"):
        received(bytes(damaged))


def test_grains_of_zeros_are_left_out_and_neighbours_joined() -> None:
    grains = {number: grain(number + 1) for number in range(20)}
    usual = len(grains[0])
    grains[9] = bytes(usual)
    with VmdkStream(Arriving(StreamRecipe(grains, 4096).build())) as stream:
        pieces = [(offset, len(data)) for offset, data in stream.pieces()]
    assert pieces == [(0, 9 * usual), (10 * usual, 6 * usual), (16 * usual, 4 * usual)]


def test_the_size_is_known_before_anything_else() -> None:
    source = Arriving(recipe().build())
    assert VmdkStream(source).size_bytes == CAPACITY * SECTOR


def test_an_empty_disk_arrives() -> None:
    assert received(StreamRecipe({}, 2048).build()) == bytes(2048 * SECTOR)


def test_the_descriptor_knows_the_size_that_virtualbox_rounds_up() -> None:
    exact = 1000
    text = described([f'RW {exact} SPARSE "x.vmdk"'])
    content = StreamRecipe({7: grain(1)}, 1024, descriptor=text).build()
    assert received(content) == bytes(896 * SECTOR) + grain(1)[: (exact - 896) * SECTOR]


@pytest.mark.parametrize("length", [GRAIN, GRAIN // 2])
def test_the_last_grain_may_be_whole_or_end_with_the_disk(length: int) -> None:
    made = recipe(grains={549: grain(4, length)})
    assert received(made.build()) == wanted(made)


def test_the_marker_that_only_vsphere_knows_is_passed_over() -> None:
    between = layout.pack_marker(0, kind=layout.MarkerKind.UNDOCUMENTED)
    made = recipe(between=between)
    assert received(made.build()) == wanted(made)


def test_zeros_behind_the_end_are_padding_and_anything_else_is_not() -> None:
    content = recipe().build()
    assert received(content + bytes(5000)) == wanted(recipe())
    with pytest.raises(BadDisk, match="end of the stream"):
        received(content + bytes(5000) + b"x")
    with pytest.raises(BadDisk, match="end of the stream"):
        received(content + bytes(17 * MIB))


def test_a_stream_cut_anywhere_is_interrupted_and_never_whole() -> None:
    content = recipe().build()
    whole = len(content)
    for cut in [*range(0, whole, 61), *range(0, whole, SECTOR), *range(whole - 40, whole, 3)]:
        with pytest.raises(ExportInterrupted) as caught:
            received(content[:cut])
        assert caught.value.retryable


def test_finish_before_the_end_is_refused() -> None:
    stream = VmdkStream(Arriving(recipe().build()))
    with pytest.raises(BadDisk, match="no end"):
        stream.finish()
    next(stream.pieces())
    with pytest.raises(BadDisk, match="no end"):
        stream.finish()


def test_whoever_stops_early_leaves_no_thread_behind() -> None:
    grains = {number: grain(number + 1) for number in range(400)}
    pieces = VmdkStream(Arriving(StreamRecipe(grains, 400 * 128).build())).pieces()
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert not [one for one in threading.enumerate() if one.name.startswith("unpack")]


@pytest.mark.parametrize("size", [CAPACITY - 4, CAPACITY - 7])
def test_a_descriptor_that_ends_before_the_last_grain_is_refused(size: int) -> None:
    """The last grain holds four sectors: it would lie past the end of a disk without them."""
    made = recipe(descriptor=described([f'RW {size} SPARSE "x.vmdk"']))
    with pytest.raises(BadDisk, match=f"descriptor's sectors at offset 512: found {size}"):
        received(made.build())


def put(content: bytes, at: int, new: bytes) -> bytes:
    return content[:at] + new + content[at + len(new) :]


FIRST = 8 * SECTOR
HEADER_DAMAGE = {
    "magic": (0, b"KDMW", "magic at offset 0"),
    "version": (4, struct.pack("<I", 4), "has version 4"),
    "no compression flag": (8, struct.pack("<I", 3), "compression"),
    "no marker flag": (8, struct.pack("<I", STREAM_FLAGS & ~layout.FLAG_MARKERS), "no stream"),
    "capacity 0": (12, struct.pack("<Q", 0), "capacity at offset 12"),
    "capacity of 2 EiB": (12, struct.pack("<Q", 2**52), "capacity at offset 12"),
    "another capacity": (12, struct.pack("<Q", 4300), "descriptor's sectors"),
    "grain size 3": (20, struct.pack("<Q", 3), "grain size at offset 20"),
    "grain size 4": (20, struct.pack("<Q", 4), "grain size at offset 20"),
    "grain size 4096": (20, struct.pack("<Q", 4096), "grain size at offset 20"),
    "descriptor size": (36, struct.pack("<Q", 2**40), "descriptor size at offset 36"),
    "entries per table": (44, struct.pack("<I", 1024), "entries per grain table at offset 44"),
    "line ends": (73, b"\r\n \r", "text mode"),
    "algorithm": (77, struct.pack("<H", 2), "compression at offset 77"),
    "descriptor": (SECTOR, b"garbage", "descriptor at offset 512"),
    "an unaligned sector": (FIRST, struct.pack("<Q", 5), "sector of a grain at offset 4096"),
    "a sector behind the disk": (FIRST, struct.pack("<Q", 2**40), "sector of a grain"),
    "a length of 4 GiB": (FIRST + 8, b"\xff\xff\xff\xff", "grain's length at offset 4096"),
    "a length too short": (FIRST + 8, struct.pack("<I", 20), "compressed grain at offset 4096"),
    "compressed bytes": (FIRST + 12, b"\xff\xff", "do not inflate"),
    "a flipped byte": (FIRST + 40, b"\xaa", "compressed grain"),
    "an unknown marker": (FIRST, struct.pack("<QII", 1, 0, 9), "marker at offset 4096"),
    "a footer too early": (FIRST, struct.pack("<QII", 1, 0, 3), "marker at offset 4096"),
    "an end too early": (FIRST, bytes(SECTOR), "end marker at offset 4096"),
}


@pytest.mark.parametrize("name", HEADER_DAMAGE)
def test_a_damaged_field_is_named_with_its_offset(name: str) -> None:
    at, new, message = HEADER_DAMAGE[name]
    with pytest.raises((BadDisk, UnsupportedDisk), match=message):
        received(put(recipe().build(), at, new))


def tail_damage() -> dict[str, tuple[int, bytes, str]]:
    """Places from the end: end marker 1, footer 2, its marker 3, directory 4, its marker 5."""
    end = len(recipe().build())
    directory, footer = end - 4 * SECTOR, end - 2 * SECTOR
    table = directory - SECTOR - 2048
    return {
        "a table's entry": (table, struct.pack("<I", 9), "grain table 1 at offset"),
        "one entry more": (table + 40, struct.pack("<I", 9), "grain table 1 at offset"),
        "a table's sectors": (table - SECTOR, struct.pack("<Q", 5), "grain table's sectors"),
        "a directory entry": (directory + 4, struct.pack("<I", 77), "directory's entry 1"),
        "no directory entry": (directory + 4, struct.pack("<I", 0), "grain table 1 at offset"),
        "a third directory entry": (directory + 8, b"\1", "more entries"),
        "directory's sectors": (directory - SECTOR, struct.pack("<Q", 0), "directory's sectors"),
        "directory's kind": (directory - SECTOR + 12, b"\1", "grain table's sectors"),
        "footer's magic": (footer, b"KDMX", "magic at offset"),
        "footer's capacity": (footer + 12, struct.pack("<Q", 4400), "footer's capacity"),
        "footer's directory": (footer + 56, struct.pack("<Q", 8), "footer's directory sector"),
        "footer's sectors": (footer - SECTOR, struct.pack("<Q", 2), "footer's sectors"),
        "end marker's kind": (end - SECTOR + 12, b"\7", "marker at offset"),
        "a grain behind the directory": (
            end - SECTOR,
            struct.pack("<QI", 549 * SMALL, 100),
            "sector of a grain",
        ),
    }


@pytest.mark.parametrize("name", tail_damage())
def test_tables_that_do_not_say_what_came_are_refused(name: str) -> None:
    at, new, message = tail_damage()[name]
    with pytest.raises(BadDisk, match=message):
        received(put(recipe().build(), at, new))


@pytest.mark.parametrize("order", [[1, 0], [0, 0, 1], [0, 512, 7]])
def test_grains_that_do_not_ascend_are_refused(order: list[int]) -> None:
    with pytest.raises(BadDisk, match="needed more than"):
        received(recipe(order=order).build())


def test_a_grain_that_is_missing_from_the_stream_is_noticed() -> None:
    content = recipe().build()
    without_first = content[:FIRST] + content[FIRST + SECTOR :]
    with pytest.raises(BadDisk, match="at offset"):
        received(without_first)


@pytest.mark.parametrize(
    "packed",
    [
        lambda data: zlib.compress(data + b"x"),
        lambda data: zlib.compress(data[:-1]),
        lambda data: zlib.compress(data)[:-2],
        lambda _data: zlib.compress(bytes(64 * MIB), 9),
    ],
    ids=["one byte more", "one byte less", "cut", "a bomb"],
)
def test_a_grain_must_inflate_to_just_a_grain(packed: Callable[[bytes], bytes]) -> None:
    content = StreamRecipe({0: grain(1)}, 1024, packed=packed).build()
    tracemalloc.start()
    try:
        with pytest.raises(BadDisk, match="grain at offset 4096"):
            received(content)
        assert tracemalloc.get_traced_memory()[1] < 8 * MIB
    finally:
        tracemalloc.stop()


def test_a_snapshots_delta_is_refused_with_its_parents_name() -> None:
    text = described(
        [f'RW {CAPACITY} SPARSE "x.vmdk"'],
        parent="5a0f17c6",
        more='parentFileNameHint="gold.vmdk"',
    )
    with pytest.raises(UnsupportedDisk, match=r"parent 'gold\.vmdk'") as caught:
        VmdkStream(Arriving(recipe(descriptor=text).build()))
    assert "vSphere" in caught.value.hint


def test_a_stream_of_a_claimed_8_tib_takes_no_memory() -> None:
    capacity = 8 * 2**40 // SECTOR
    made = StreamRecipe({0: grain(1)}, capacity, descriptor=b"# Disk DescriptorFile\n")
    content = bytes(made.build())
    tracemalloc.start()
    try:
        with VmdkStream(Arriving(content)) as stream:
            assert stream.size_bytes == capacity * SECTOR
            assert [offset for offset, _ in stream.pieces()] == [0]
        assert tracemalloc.get_traced_memory()[1] < 16 * MIB
    finally:
        tracemalloc.stop()


def test_what_lies_between_grains_does_not_pile_up_in_memory() -> None:
    """Each grain keeps the megabyte that it came in; many of them far apart must not."""
    grains = {number: grain(number, 8 * SECTOR) for number in range(0, 40 * 512, 512)}
    fields: dict[str, object] = {"grain_size": 8}
    apart = layout.pack_marker(0, kind=layout.MarkerKind.UNDOCUMENTED) * 2050
    content = StreamRecipe(grains, 163_840, fields=fields, between=apart, between_all=True).build()
    source = Arriving(content)
    tracemalloc.start()
    try:
        with VmdkStream(source) as stream:
            assert sum(len(data) for _, data in stream.pieces()) == 39 * 8 * SECTOR
            stream.finish()
        assert tracemalloc.get_traced_memory()[1] < 24 * MIB
        assert source.most_at_once <= MIB
    finally:
        tracemalloc.stop()


@settings(max_examples=40, deadline=None)
@given(
    numbers=st.lists(st.integers(0, 1200), unique=True, max_size=12),
    short=st.integers(1, 128),
    at_once=st.booleans(),
    seed=st.binary(min_size=1, max_size=6),
)
def test_any_layout_arrives(
    numbers: list[int],
    short: int,
    at_once: bool,
    seed: bytes,
) -> None:
    fields: dict[str, object] = {"grain_size": 8}
    capacity = 1200 * 8 + min(short, 8)
    grains = {n: (seed * 5000)[n % 7 : n % 7 + 4096] for n in numbers}
    made = StreamRecipe(grains, capacity, fields=fields, tables_at_once=at_once)
    disk = bytearray(capacity * SECTOR)
    for number, data in grains.items():
        piece = data[: len(disk) - number * 4096]
        disk[number * 4096 : number * 4096 + len(piece)] = piece
    assert received(made.build()) == disk


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2**20), st.binary(min_size=1, max_size=8)), max_size=3))
def test_whatever_is_overwritten_only_our_errors_come_out(
    changes: list[tuple[int, bytes]],
) -> None:
    content = recipe().build()
    for at, new in changes:
        content = put(content, at % len(content), new)[: len(content)]
    try:
        disk = received(content)
    except ImageportError:
        return
    assert len(disk) >= CAPACITY * SECTOR
