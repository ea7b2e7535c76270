# References: RFC 3720 appendix B.4 (polynomial, check values), [MS-VHDX] 2.2 "Checksum".
"""CRC-32C (Castagnoli), the checksum of VHDX structures; the standard library has only CRC-32."""

from __future__ import annotations

from functools import cache

_POLYNOMIAL = 0x82F63B78


def _table() -> tuple[int, ...]:
    rows = []
    for value in range(256):
        row = value
        for _ in range(8):
            row = (row >> 1) ^ (_POLYNOMIAL if row & 1 else 0)
        rows.append(row)
    return tuple(rows)


BYTE_TABLE = _table()
"""What each byte that leaves the register at its low end makes of the rest."""


def crc32c(data: bytes | bytearray | memoryview) -> int:
    """Return the checksum of ``data``; about 10 MiB/s, meant for structures of at most 64 KiB.

    Zeros at the end, of which VHDX tables mostly consist, cost nothing.
    """
    table = BYTE_TABLE
    value = 0xFFFFFFFF
    head = bytes(data).rstrip(b"\0")
    for byte in head:
        value = table[(value ^ byte) & 0xFF] ^ (value >> 8)
    return _after_zeros(value, len(data) - len(head)) ^ 0xFFFFFFFF


def _after_zeros(value: int, count: int) -> int:
    """Return the register after ``count`` zero bytes, a linear map, by repeated squaring."""
    step = _ONE_ZERO
    while count:
        if count & 1:
            value = _apply(step, value)
        count >>= 1
        if count:
            step = _squared(step)
    return value


def _apply(columns: tuple[int, ...], value: int) -> int:
    result = 0
    for column in columns:
        if not value:
            break
        if value & 1:
            result ^= column
        value >>= 1
    return result


@cache
def _squared(columns: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(_apply(columns, column) for column in columns)


_ONE_ZERO = tuple(BYTE_TABLE[(1 << bit) & 0xFF] ^ ((1 << bit) >> 8) for bit in range(32))
"""What one zero byte makes of each bit of the register."""
