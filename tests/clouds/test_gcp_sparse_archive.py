"""The archive for Compute Engine, as other people's programs read it.

Recipe: blocks from a pool of four kinds at any places of a disk of whole GiB; what a program
extracts is compared block by block, and has to be a hole everywhere else.
"""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from random import Random

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageport.clouds.gcp.deflated_block import DeflatedBlock, deflate, facts_of
from imageport.clouds.gcp.sparse_archive import (
    TAPE_BLOCK_BYTES,
    number_field,
    sparse_archive,
    whole_gib,
)
from imageport.model import BLOCK_BYTES, GIB
from tests.clouds.archive_readers import gnu_tar, libarchive, python_tarfile

Reader = Callable[[Path, Path], Path]
READERS = pytest.mark.parametrize("read", [gnu_tar, python_tarfile, libarchive])
KINDS = 4
GIB_BLOCKS = GIB // BLOCK_BYTES
FEW = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


@cache
def block(kind: int) -> bytes:
    """What does not shrink, what shrinks, what is nearly empty, and what starts with zeros."""
    noise = Random(kind).randbytes(BLOCK_BYTES)  # noqa: S311 - reproducible, no secret
    return (
        noise,
        (b"Windows" * BLOCK_BYTES)[:BLOCK_BYTES],
        noise[:512].ljust(BLOCK_BYTES, b"\0"),
        noise[:1].rjust(BLOCK_BYTES, b"\0"),
    )[kind]


@cache
def deflated(kind: int) -> tuple[bytes, DeflatedBlock]:
    piece = deflate(block(kind))
    return piece, facts_of(block(kind), piece)


def pieces_of(size_bytes: int, kinds: Mapping[int, int]) -> Iterator[bytes]:
    """Yield the archive of a disk with a block of the kind at each index, checking what it says."""
    facts = [deflated(kind)[1] for kind in kinds.values()]
    archive = sparse_archive(size_bytes, list(kinds), facts)
    length, crc32c = 0, 0
    for piece in (archive.head, *(deflated(kind)[0] for kind in kinds.values()), archive.foot):
        length, crc32c = length + len(piece), google_crc32c.extend(crc32c, piece)
        yield piece
    assert (length, crc32c) == (archive.size_bytes, archive.crc32c)


def write(path: Path, size_bytes: int, kinds: Mapping[int, int]) -> Path:
    with path.open("wb") as file:
        file.writelines(pieces_of(size_bytes, kinds))
    return path


def data_ranges(disk: int, size_bytes: int) -> Iterator[range]:
    """Yield the blocks that the file system holds something of."""
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(disk, end, os.SEEK_DATA)
        except OSError:
            return
        end = os.lseek(disk, start, os.SEEK_HOLE)
        yield range(start // BLOCK_BYTES, -(-end // BLOCK_BYTES))


def check(disk: Path, size_bytes: int, kinds: Mapping[int, int]) -> None:
    """The disk holds these blocks and nothing else: every other one was never written."""
    file = os.open(disk, os.O_RDONLY)
    try:
        assert os.fstat(file).st_size == size_bytes
        for index, kind in kinds.items():
            assert os.pread(file, BLOCK_BYTES, index * BLOCK_BYTES) == block(kind)
        held = {index for found in data_ranges(file, size_bytes) for index in found}
        assert held <= set(kinds)
    finally:
        os.close(file)


@st.composite
def disks(draw: st.DrawFn) -> tuple[int, dict[int, int]]:
    size_gib = draw(st.integers(1, 3))
    count = size_gib * GIB_BLOCKS
    runs = st.tuples(st.integers(0, count - 1), st.integers(1, 4))
    indexes = {
        min(index, count - 1)
        for first, length in draw(st.lists(runs, max_size=30))
        for index in range(first, first + length)
    }
    indexes |= set(draw(st.sampled_from([(), (0,), (count - 1,), (0, count - 1)])))
    return size_gib * GIB, {index: draw(st.integers(0, KINDS - 1)) for index in sorted(indexes)}


@READERS
@FEW
@given(disk=disks())
def test_every_reader_extracts_the_disk_to_the_byte_and_as_sparse(
    read: Reader, disk: tuple[int, dict[int, int]]
):
    size_bytes, kinds = disk
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        check(read(write(folder / "disk.tar.gz", size_bytes, kinds), folder), size_bytes, kinds)


@READERS
@pytest.mark.parametrize("ranges", [0, 1, 3, 4, 5, 24, 25, 26, 46, 47])
def test_a_map_that_just_fits_its_headers_and_one_that_just_does_not(
    read: Reader, ranges: int, tmp_path: Path
):
    """Four ranges fit the first header and 21 each that follows; the file's end counts as one."""
    kinds = {2 * number: 2 for number in range(ranges)}
    check(read(write(tmp_path / "disk.tar.gz", GIB, kinds), tmp_path), GIB, kinds)


@READERS
def test_a_disk_larger_than_octal_numbers_reach(read: Reader, tmp_path: Path):
    size_bytes = 40 * GIB
    last = size_bytes // BLOCK_BYTES - 1
    kinds = {0: 0, 8 * GIB_BLOCKS - 1: 1, 8 * GIB_BLOCKS: 2, 9 * GIB_BLOCKS: 3, last: 1}
    disk = read(write(tmp_path / "disk.tar.gz", size_bytes, kinds), tmp_path)
    check(disk, size_bytes, kinds)


def test_the_archive_is_listed_as_one_sparse_file_and_ends_as_gnu_tar_ends_it(tmp_path: Path):
    archive = write(tmp_path / "disk.tar.gz", GIB, {7: 1})
    listed = subprocess.run(
        ["tar", "-tvzf", str(archive)], check=True, capture_output=True, text=True
    )
    assert listed.stderr == ""
    assert listed.stdout.split() == [
        "-rw-r--r--", "0/0", str(GIB), "1970-01-01", "00:00", "disk.raw",
    ]  # fmt: skip
    plain = subprocess.run(["gzip", "-dc", str(archive)], check=True, capture_output=True)
    assert len(plain.stdout) % TAPE_BLOCK_BYTES == 0
    assert len(plain.stdout) - plain.stdout.rindex(block(1)) - BLOCK_BYTES >= 1024


def test_the_header_is_the_one_that_gnu_tar_makes(tmp_path: Path):
    """Name, mode, map and sizes as GNU tar writes them for the same file; only times differ."""
    kinds = {3: 0, 4: 1, 90: 2, 2000: 0}
    disk = gnu_tar(write(tmp_path / "ours.tar.gz", GIB, kinds), tmp_path)
    os.utime(disk, (0, 0))
    argv = ["tar", "--format=oldgnu", "--owner=0", "--group=0", "--numeric-owner", "--mode=0644"]
    argv += ["--hole-detection=seek", "-Scf", "theirs.tar", disk.name]
    subprocess.run(argv, check=True, cwd=tmp_path)
    ours = subprocess.run(
        ["gzip", "-dc", "ours.tar.gz"], check=True, cwd=tmp_path, capture_output=True
    ).stdout
    assert ours == (tmp_path / "theirs.tar").read_bytes()


def test_the_same_disk_makes_the_same_archive():
    kinds = {1: 0, 5: 1}
    assert list(pieces_of(GIB, kinds)) == list(pieces_of(GIB, kinds))


def test_changing_one_block_leaves_head_and_all_other_pieces_as_they_were():
    before, after = (list(pieces_of(GIB, {1: 0, 5: kind, 9: 1})) for kind in (1, 2))
    assert [old == new for old, new in zip(before, after, strict=True)] == [
        True, True, False, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize("number", [0, 1, 8**11 - 1, 8**11, 8**11 + 1, 2**48])
def test_numbers_are_read_back_as_they_were(number: int):
    field = number_field(number)
    assert len(field) == 12
    assert tarfile.nti(field) == number


@pytest.mark.parametrize(
    ("size_bytes", "blocks", "said"),
    [
        (GIB - 512, [], "Bad disk: found 1073741312 bytes"),
        (0, [], "Bad disk: found 0 bytes"),
        (GIB, [GIB_BLOCKS], "Bad block: found 2048, needed one from 0 to 2047"),
        (GIB, [5, 5], "Bad block: found 5, needed one from 6 to 2047"),
        (GIB, [5, 4], "Bad block: found 4"),
        (GIB, [-1], "Bad block: found -1"),
    ],
)
def test_what_is_no_disk_is_refused(size_bytes: int, blocks: list[int], said: str):
    with pytest.raises(ValueError, match=said):
        sparse_archive(size_bytes, blocks, [deflated(0)[1]] * len(blocks))


@pytest.mark.parametrize("count", [1, 3])
def test_facts_of_other_blocks_than_there_are_are_refused(count: int):
    with pytest.raises(ValueError, match=f"found facts of {count} blocks, needed 2"):
        sparse_archive(GIB, [0, 1], [deflated(0)[1]] * count)


@pytest.mark.parametrize(
    ("size_bytes", "needed"), [(0, 1), (1, 1), (GIB, 1), (GIB + 1, 2), (3 * GIB - 1, 3)]
)
def test_disks_are_made_of_whole_gib(size_bytes: int, needed: int):
    assert whole_gib(size_bytes) == needed * GIB


def test_a_map_of_eighty_thousand_ranges_is_read_back_whole(tmp_path: Path):
    blocks = range(0, 160_000, 2)
    archive = sparse_archive(80 * GIB, blocks, [deflated(2)[1]] * len(blocks))
    head = tmp_path / "head"
    head.write_bytes(archive.head)
    with tarfile.open(head, "r|gz") as opened:
        member = opened.next()
    assert member is not None
    # The empty range at the end counts for nothing there.
    expected = [(index * BLOCK_BYTES, BLOCK_BYTES) for index in blocks]
    assert (member.size, member.sparse) == (80 * GIB, expected)


@pytest.mark.slow
def test_more_data_than_fits_the_counters_of_tar_and_gzip(tmp_path: Path):
    """9 GiB in 18,432 ranges: the stored size is to base 256, gzip's own went round twice."""
    kinds = dict.fromkeys(range(5, 5 + 2 * 9 * GIB_BLOCKS, 2), 1)
    archive = write(tmp_path / "disk.tar.gz", 64 * GIB, kinds)
    listed = subprocess.run(
        ["tar", "-tvzf", str(archive)], check=True, capture_output=True, text=True
    )
    assert listed.stderr == ""
    assert listed.stdout.split()[2] == str(64 * GIB)
    subprocess.run(["gzip", "--test", str(archive)], check=True)
