from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imageport.clouds.gcp.deflated_block import (
    FLUSH_MARK,
    MOST_BYTES,
    deflate,
    facts_of,
    inflate_block,
)
from imageport.errors import VerificationFailed
from imageport.model import BLOCK_BYTES, ZERO_BLOCK

NOISE = Random(6).randbytes(BLOCK_BYTES)  # noqa: S311 - reproducible, no secret
TEXT = (b"golden image " * BLOCK_BYTES)[:BLOCK_BYTES]


def by_zlib(data: bytes, flush: int = zlib.Z_FULL_FLUSH) -> bytes:
    """What the machine that reads prepared disks writes: it has the standard library only."""
    stream = zlib.compressobj(1, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush(flush)


@pytest.mark.parametrize("data", [NOISE, TEXT, ZERO_BLOCK], ids=["noise", "text", "zeros"])
@pytest.mark.parametrize("make", [deflate, by_zlib])
def test_a_block_comes_back_whoever_deflated_it(make: Callable[[bytes], bytes], data: bytes):
    piece = make(data)
    assert inflate_block(piece, "x") == data
    assert len(piece) <= MOST_BYTES
    assert piece.endswith(FLUSH_MARK)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(max_size=3000), max_size=8))
def test_pieces_in_any_order_are_one_stream_that_anybody_reads(datas: list[bytes]):
    plain = b"".join(datas)
    stream = b"".join(deflate(data) for data in datas) + b"\x03\x00"
    assert zlib.decompress(stream, -15) == plain
    trailer = zlib.crc32(plain).to_bytes(4, "little") + len(plain).to_bytes(4, "little")
    assert gzip.decompress(bytes.fromhex("1f8b0800000000000003") + stream + trailer) == plain


def test_the_facts_of_a_block_are_those_of_its_bytes():
    piece = deflate(TEXT)
    facts = facts_of(memoryview(TEXT), piece)
    assert facts.plain_crc32 == zlib.crc32(TEXT)
    assert facts.deflated_bytes == len(piece)


@pytest.mark.parametrize(
    ("piece", "found"),
    [
        (b"", "0 bytes"),
        (deflate(NOISE[:-1]), f"{BLOCK_BYTES - 1} bytes"),
        (deflate(NOISE + b"x"), f"more than {BLOCK_BYTES} bytes"),
        (deflate(bytes(64 * 1024 * 1024)), f"more than {BLOCK_BYTES} bytes"),
        (deflate(NOISE)[:-5], "bytes|no flush"),
        (by_zlib(TEXT, zlib.Z_SYNC_FLUSH)[:-1], "no flush"),
        (by_zlib(TEXT, zlib.Z_FINISH), "a stream that ends"),
        (deflate(TEXT) + b"\x03\x00", "a stream that ends"),
        (deflate(TEXT) + b"\x03\x00" + FLUSH_MARK, "a stream that ends"),
        (b"\xff" * 100, "data that does not inflate"),
        (zlib.compress(TEXT), "data that does not inflate"),
        (deflate(TEXT) + deflate(b"x"), f"more than {BLOCK_BYTES} bytes"),
    ],
    ids=[
        "nothing", "short", "long", "bomb", "cut", "cut flush", "finished", "final block",
        "final block and flush", "garbage", "zlib header", "two",
    ],
)  # fmt: skip
def test_what_is_no_piece_of_one_block_is_refused(piece: bytes, found: str):
    with pytest.raises(VerificationFailed, match=f"Bad block 'seg/1': found .*({found})"):
        inflate_block(piece, "seg/1")
