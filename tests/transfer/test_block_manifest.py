"""The manifest keeps absent and zero apart, travels as bytes, and distrusts what it reads."""

from __future__ import annotations

import hashlib
import io
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageport.errors import StateError
from imageport.model import BLOCK_BYTES, ZERO_DIGEST
from imageport.transfer.digest_table import DigestTable
from imageport.transfer.manifest import Manifest

DIGESTS = st.one_of(st.just(ZERO_DIGEST), st.binary(min_size=32, max_size=32))


def manifest_of(blocks: dict[int, bytes], count: int = 20, *, absent_reads_zero: bool = True):
    manifest = Manifest(count * BLOCK_BYTES, absent_reads_zero=absent_reads_zero)
    for index, digest in blocks.items():
        manifest.set(index, digest)
    return manifest


def test_an_absent_block_of_an_encrypted_volume_is_unknown_and_a_written_zero_is_not():
    manifest = manifest_of({1: ZERO_DIGEST}, absent_reads_zero=False)
    assert manifest.digest(0) is None
    assert manifest.digest(1) == ZERO_DIGEST
    assert manifest_of({}).digest(0) == ZERO_DIGEST


def test_a_block_behind_the_end_is_unknown():
    assert manifest_of({}).digest(20) is None


@given(st.dictionaries(st.integers(0, 19), DIGESTS), st.booleans())
def test_bytes_and_back_is_the_same(blocks: dict[int, bytes], absent_reads_zero: bool):
    manifest = manifest_of(blocks, absent_reads_zero=absent_reads_zero)
    again = Manifest.from_bytes(manifest.to_bytes())
    assert again == manifest
    assert dict(again.digests) == blocks
    assert again.absent_reads_zero is absent_reads_zero
    assert again.image_digest() == manifest.image_digest()


@given(st.dictionaries(st.integers(0, 19), DIGESTS), st.sets(st.integers(0, 19)))
def test_zeros_written_or_absent_do_not_change_the_image_digest(
    blocks: dict[int, bytes], zeros: set[int]
):
    plain = manifest_of(blocks)
    more = manifest_of(blocks | dict.fromkeys(zeros - set(blocks), ZERO_DIGEST))
    assert plain.image_digest() == more.image_digest()


def test_the_image_digest_sees_size_position_and_content():
    digests = {
        manifest_of({}).image_digest(),
        manifest_of({}, 21).image_digest(),
        manifest_of({1: b"a" * 32}).image_digest(),
        manifest_of({2: b"a" * 32}).image_digest(),
        manifest_of({2: b"b" * 32}).image_digest(),
    }
    assert len(digests) == 5


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_a_damaged_manifest_is_refused_with_the_name_of_its_file(where: int, value: int):
    good = manifest_of({index: hashlib.sha256(bytes([index])).digest() for index in range(20)})
    data = bytearray(good.to_bytes())
    where %= len(data)
    if data[where] == value:
        return
    data[where] = value
    with pytest.raises(StateError, match="manifests/x"):
        Manifest.from_bytes(bytes(data), "manifests/x")


@given(st.binary(max_size=300))
def test_bytes_that_are_no_manifest_are_refused(data: bytes):
    with pytest.raises(StateError):
        Manifest.from_bytes(data)


@pytest.mark.parametrize(("size", "count"), [(2**63, 2**44), (20 * BLOCK_BYTES, 2**40)])
def test_a_manifest_that_claims_more_than_any_disk_allocates_nothing(size: int, count: int):
    body = struct.pack("<16sIIQQ", b"imageport-blocks", 1, 0, size, count) + zlib.compress(b"")
    with pytest.raises(StateError):
        Manifest.from_bytes(body + hashlib.sha256(body).digest())


def test_a_manifest_that_unpacks_to_more_than_it_says_is_refused():
    bomb = zlib.compress(bytes(50_000_000))
    body = struct.pack("<16sIIQQ", b"imageport-blocks", 1, 0, BLOCK_BYTES, 1) + bomb
    with pytest.raises(StateError, match="blocks"):
        Manifest.from_bytes(body + hashlib.sha256(body).digest())


@pytest.mark.parametrize("blocks", [b"", bytes(33 * 9999), bytes(33 * 10_001)])
def test_a_manifest_that_unpacks_to_another_length_than_it_says_is_refused(blocks: bytes):
    header = struct.pack("<16sIIQQ", b"imageport-blocks", 1, 0, 10_000 * BLOCK_BYTES, 10_000)
    body = header + zlib.compress(blocks)
    with pytest.raises(StateError, match="bytes of blocks, needed"):
        Manifest.from_bytes(body + hashlib.sha256(body).digest())


def test_a_manifest_becomes_bytes_and_comes_of_them_in_little_more_memory_than_it_takes():
    count = 40_000
    manifest = manifest_of({}, count)
    for index in range(count):
        manifest.set(index, hashlib.sha256(b"%d" % index).digest())
    tracemalloc.start()
    try:
        data = manifest.to_bytes()
        assert tracemalloc.get_traced_memory()[1] < 2.3 * 33 * count
        tracemalloc.reset_peak()
        found = Manifest.from_bytes(data)
        assert tracemalloc.get_traced_memory()[1] < 2.5 * 33 * count
    finally:
        tracemalloc.stop()
    assert found == manifest


@given(st.dictionaries(st.integers(0, 99), st.binary(min_size=32, max_size=32)))
def test_a_digest_table_is_a_mapping_in_order(blocks: dict[int, bytes]):
    table = DigestTable(100)
    for index, digest in blocks.items():
        table.set(index, digest)
    assert dict(table) == blocks
    assert list(table) == sorted(blocks)
    assert len(table) == len(blocks)
    assert all((index in table) == (index in blocks) for index in range(-1, 102))


@given(st.sets(st.sampled_from([0, 1, 4095, 4096, 8191, 20_000, 20_479]), min_size=1))
def test_a_digest_table_survives_being_packed(indexes: set[int]):
    table = DigestTable(20_480 - 1)
    for index in indexes - {20_479}:
        table.set(index, index.to_bytes(32, "big"))
    packed = b"".join(table.packed())
    again = DigestTable.from_packed(table.block_count, io.BytesIO(packed).read)
    assert dict(again) == dict(table)
    assert b"".join(again.packed()) == packed
    table.discard(4096)
    assert 4096 not in table


def test_a_digest_table_of_a_disk_that_is_hardly_written_takes_hardly_any_memory():
    """64 TiB, as a file of a hundred bytes may claim."""
    tracemalloc.start()
    table = DigestTable(64 * 2**40 // BLOCK_BYTES)
    table.set(100_000_000, bytes(32))
    assert (len(table), list(table)) == (1, [100_000_000])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000


def test_a_digest_table_refuses_what_does_not_fit():
    table = DigestTable(10)
    with pytest.raises(IndexError):
        table.set(10, bytes(32))
    with pytest.raises(ValueError, match="32"):
        table.set(1, bytes(31))
