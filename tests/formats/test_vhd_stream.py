"""Disks that arrive once, in order: VHD as xapi sends it, and raw.

Recipe: `vhd_bytes`; what xapi does (parts in a fixed order, blocks ascending, bitmaps all ones) and
what it does not.
"""

from __future__ import annotations

import random
import subprocess
from dataclasses import replace

import pytest
from byte_streams import BytesStream
from vhd_bytes import FIXED, KIB, MIB, TABLE, Recipe, in_footers, in_header, make, put

from imageport.errors import BadDisk, ExportInterrupted, UnsupportedDisk
from imageport.formats.raw_stream import RawStream
from imageport.formats.vhd_stream import VhdStream
from imageport.storage.local import LocalFolder

SIZE = 2 * MIB - 3 * 512
RECIPE = Recipe(SIZE, blocks={0: [(0, 1024)], 3: [(5, 100), (900, 124)]})
MADE = make(RECIPE)


def received(content: bytes, size: int = SIZE) -> bytes:
    found = bytearray(size)
    stream = VhdStream(BytesStream(content))
    for offset, data in stream.pieces():
        found[offset : offset + len(data)] = data
    stream.finish()
    return bytes(found)


def test_only_sectors_that_came_are_pieces() -> None:
    pieces = list(VhdStream(BytesStream(MADE.content)).pieces())
    assert [(offset, len(data)) for offset, data in pieces] == [
        (0, 512 * KIB),
        (3 * 512 * KIB + 5 * 512, 100 * 512),
        (3 * 512 * KIB + 900 * 512, 121 * 512),
    ]


def test_nothing_behind_the_footer_is_asked_for() -> None:
    source = BytesStream(MADE.content + b"the next response")
    stream = VhdStream(source)
    list(stream.pieces())
    assert source.position == len(MADE.content)
    assert stream.finish() == "2 of 4 blocks came, and the footer is the one that came first"


@pytest.mark.parametrize("gap", [512, 4096, MIB])
def test_gaps_before_blocks_and_the_footer_are_passed_over(gap: int) -> None:
    places = {block: (place + gap) // 512 for block, place in MADE.places.items()}
    first = MADE.places[0]
    content = MADE.content[:first] + bytes(gap) + MADE.content[first:-512]
    for block, sector in places.items():
        content = put(content, TABLE + 4 * block, ">I", sector)
    assert received(content + bytes(gap) + MADE.content[-512:]) == MADE.guest


def test_a_footer_of_511_bytes_ends_the_stream() -> None:
    assert received(MADE.content[:-1]) == MADE.guest


def test_the_last_block_may_end_with_the_disk() -> None:
    content = MADE.content[: -512 - 3 * 512] + MADE.content[-512:]
    assert received(content) == MADE.guest


def test_what_qemu_writes_arrives(folder: LocalFolder) -> None:
    raw = random.Random(3).randbytes(3 * MIB) + bytes(5 * MIB)  # noqa: S311
    (folder.root / "x.raw").write_bytes(raw)
    command = ["qemu-img", "convert", "-O", "vpc", "-o", "force_size=on", "x.raw", "x.vhd"]
    subprocess.run(command, cwd=folder.root, check=True)
    assert received((folder.root / "x.vhd").read_bytes(), 8 * MIB) == raw


@pytest.mark.parametrize("seed", range(12))
def test_a_stream_that_is_cut_anywhere_never_ends_well(seed: int) -> None:
    cut = random.Random(seed).randrange(len(MADE.content) - 511)  # noqa: S311
    for source in (BytesStream(MADE.content[:cut]), BytesStream(MADE.content, cut=cut)):
        with pytest.raises(ExportInterrupted):
            received_from(source)


def received_from(source: BytesStream) -> None:
    stream = VhdStream(source)
    try:
        list(stream.pieces())
    except ExportInterrupted:
        with pytest.raises(BadDisk, match="no end"):
            stream.finish()
        raise


def test_blocks_in_another_order_are_refused_before_any_comes() -> None:
    with pytest.raises(UnsupportedDisk, match="block 3 comes before one that precedes it"):
        VhdStream(BytesStream(make(replace(RECIPE, order=[3, 0])).content))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\0" * 4096, r"copy of the footer at offset 0: found"),
        (put(MADE.content, 100, "B", 1), r"copy of the footer at offset 64: found checksum"),
        (in_footers(MADE.content, 60, ">I", 2), r"disk type at offset 60: found 2, needed 3 or 4"),
        (in_footers(MADE.content, 16, ">Q", 1 << 40), r"data offset at offset 16: found"),
        (put(MADE.content, 700, "B", 1), r"dynamic header at offset 548: found checksum"),
        (in_header(MADE.content, 16, ">Q", 1 << 40), r"table offset at offset 528: found"),
        (put(MADE.content, TABLE, ">I", 2), r"table entry 0 at offset 2048: found 2, needed 5"),
        (
            put(MADE.content, TABLE + 12, ">I", MADE.places[0] // 512 + 9),
            r"table entry 3 at offset 2060: found 14",
        ),
        (
            MADE.content[:-512] + in_footers(MADE.content, 24, ">I", 5)[-512:],
            r"footer at offset .*: found another one",
        ),
        (MADE.content[:-512] + bytes(4 * MIB), r"end of the blocks at offset .*found no footer"),
    ],
)
def test_what_contradicts_the_format_is_named(content: bytes, words: str) -> None:
    with pytest.raises(BadDisk, match=words):
        received(content)


def test_a_fixed_disk_is_no_stream_of_this_kind() -> None:
    with pytest.raises(BadDisk, match="copy of the footer"):
        VhdStream(BytesStream(make(Recipe(64 * KIB, kind=FIXED)).content))


def test_a_raw_stream_leaves_zeros_out() -> None:
    disk = bytearray(5 * MIB + 512)
    disk[70_000] = 1
    disk[MIB : 2 * MIB] = b"d" * MIB
    disk[-1] = 7
    source = BytesStream(bytes(disk) + b"more")
    stream = RawStream(source, len(disk))
    pieces = list(stream.pieces())
    assert [(offset, len(data)) for offset, data in pieces] == [
        (65536, 65536),
        (MIB, MIB),
        (5 * MIB, 512),
    ]
    assert all(data == disk[offset : offset + len(data)] for offset, data in pieces)
    assert source.position == len(disk)
    assert str(len(disk)) in stream.finish()


@pytest.mark.parametrize("cut", [0, 1, MIB, 3 * MIB - 1])
def test_a_raw_stream_that_ends_early_is_interrupted(cut: int) -> None:
    stream = RawStream(BytesStream(b"d" * cut), 3 * MIB)
    with pytest.raises(ExportInterrupted, match=f"after {cut} of {3 * MIB} bytes"):
        list(stream.pieces())
    with pytest.raises(BadDisk):
        stream.finish()


@pytest.mark.parametrize("size", [0, -512, 513])
def test_a_raw_stream_needs_a_size_in_sectors(size: int) -> None:
    with pytest.raises(BadDisk, match="multiple of 512"):
        RawStream(BytesStream(b""), size)
