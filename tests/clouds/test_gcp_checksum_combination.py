from __future__ import annotations

from random import Random

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageport.clouds.gcp.checksum_combination import crc32c_combine, crc32c_of_parts
from imageport.model import MIB

CHECKSUM = st.integers(0, 2**32 - 1)
LENGTH = st.integers(0, 2**45)


@given(st.lists(st.binary(max_size=500), max_size=10))
def test_the_checksum_of_all_parts_follows_from_those_of_each(parts: list[bytes]):
    known = [(google_crc32c.value(part), len(part)) for part in parts]
    assert crc32c_of_parts(known) == google_crc32c.value(b"".join(parts))


@pytest.mark.parametrize("length", [1, 1023, 1024, 1025, 524_288, 524_560, MIB - 1, MIB, MIB + 1])
def test_lengths_around_each_digit(length: int):
    noise = Random(length)  # noqa: S311 - reproducible, no secret
    first, second = noise.randbytes(100), noise.randbytes(length)
    combined = crc32c_combine(google_crc32c.value(first), google_crc32c.value(second), length)
    assert combined == google_crc32c.value(first + second)


@given(CHECKSUM, CHECKSUM, CHECKSUM, LENGTH, LENGTH)
def test_it_does_not_matter_what_is_joined_first(
    a: int, b: int, c: int, bytes_b: int, bytes_c: int
):
    left = crc32c_combine(crc32c_combine(a, b, bytes_b), c, bytes_c)
    assert left == crc32c_combine(a, crc32c_combine(b, c, bytes_c), bytes_b + bytes_c)


@given(CHECKSUM, LENGTH)
def test_nothing_joined_changes_nothing(checksum: int, length: int):
    assert crc32c_combine(checksum, 0, 0) == checksum
    assert crc32c_combine(0, checksum, length) == checksum
