# References: ITU-T T.81 (JPEG), Annex B: marker segments.
"""A real, black picture for screenshots: these machines have no display."""

from __future__ import annotations

_ONE_CODE = bytes([1, *[0] * 15])
"""Code lengths of a Huffman table with a single code, ``0``."""


def _segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(content) + 2).to_bytes(2, "big") + content


BLACK_JPEG = b"".join(
    (
        b"\xff\xd8",
        _segment(0xE0, b"JFIF\0\x01\x01\x00\x00\x01\x00\x01\x00\x00"),
        _segment(0xDB, b"\0" + b"\xff" * 64),  # all quantization steps 255
        _segment(0xC0, bytes((8, 0, 8, 0, 8, 1, 1, 0x11, 0))),  # 8 x 8, one component
        _segment(0xC4, b"\x00" + _ONE_CODE + b"\x03"),  # DC: a difference of 3 bits
        _segment(0xC4, b"\x10" + _ONE_CODE + b"\x00"),  # AC: end of block
        _segment(0xDA, bytes((1, 1, 0, 0, 63, 0))),
        b"\x37",  # 0 011 0 and padding: DC -4, which is black, end of block
        b"\xff\xd9",
    )
)
