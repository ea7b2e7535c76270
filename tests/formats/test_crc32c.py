"""The checksum, against the values of its specification."""

import pytest

from imageport.formats._crc32c import crc32c


@pytest.mark.parametrize(
    ("data", "checksum"),
    [
        # RFC 3720 B.4 and the check value of the CRC catalogue.
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(reversed(range(32))), 0x113FDB5C),
        (b"", 0),
    ],
)
def test_the_checksum_has_the_values_of_its_specification(data: bytes, checksum: int) -> None:
    assert crc32c(data) == checksum


@pytest.mark.parametrize("zeros", [1, 2, 3, 31, 64, 4000])
def test_zeros_at_the_end_count_like_any_other_bytes(zeros: int) -> None:
    # The linear map for trailing zeros against the plain loop, which a last byte forces.
    whole = crc32c(b"head" + bytes(zeros) + b"\1")
    register = crc32c(b"head" + bytes(zeros)) ^ 0xFFFFFFFF
    table_index = (register ^ 1) & 0xFF
    row = table_index
    for _ in range(8):
        row = (row >> 1) ^ (0x82F63B78 if row & 1 else 0)
    assert whole == row ^ (register >> 8) ^ 0xFFFFFFFF
