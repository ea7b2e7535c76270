"""Damages a disk's files at the places that its reader looks at, and mends checksums in some.

What is structure is not told here: it is what the reader asked for while it opened the sound disk,
so the fuzzer follows when a reader or a layout changes.
"""

from __future__ import annotations

import random
import re
import struct
from collections.abc import Callable

from imageport.formats._vhdx_layout import HEADER_OFFSETS, REGION_TABLE_OFFSETS
from tests.formats.fuzz_seeds import KIB, Seed, mend_vhd
from tests.formats.vhdx_bytes import sealed

STRANGE = (0, 1, 2, 3, 7, 255, 511, 512, 2**15, 2**16 - 1, 2**20, 2**31 - 1, 2**31, 2**32 - 1)
VERY_STRANGE = (2**32, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 512, 2**64 - 1)
WORDS = (
    b"../../etc/passwd",
    b"/etc/passwd",
    b"C:\\Windows\\x",
    b"\\\\host\\share\\x",
    b"",
    b"..",
    b"\x00",
    b"CON",
    b"disk.img",
    b"RW 18446744073709551615 FLAT",
    b"ffffffff",
    b"-1",
    b"\xff\xfe",
)
MOST_PLACES = 4096

Places = dict[str, list[int]]
"""By file: offsets of structures, ascending."""


class Mutation:
    """One damaged copy of a seed and, in words, what was done to it."""

    def __init__(self, seed: Seed, places: Places, number: int) -> None:
        self.dice = random.Random(f"{seed.kind} {number}")  # noqa: S311 - repeatable
        self.said: list[str] = []
        self.files = {name: bytearray(content) for name, content in seed.files.items()}
        self._places = {name: found for name, found in places.items() if found}
        self._touched: set[str] = set()
        for _ in range(self.dice.choice((1, 1, 1, 2, 3, 5))):
            self._change()
        if self.dice.random() < 2 / 3:
            for name in sorted(self._touched):
                mend(self.files[name])
            self.said.append("checksums mended")

    def _change(self) -> None:
        name = self.dice.choice(sorted(self._places))
        content = self.files[name]
        change = self.dice.choice(CHANGES)
        at = min(self._place(name), max(0, len(content) - 1))
        self.said.append(f"{change.__name__.strip('_')} {name}@{at}")
        if content:
            change(content, at, self)
            self._touched.add(name)

    def _place(self, name: str) -> int:
        if self.dice.random() < 1 / 16:
            return self.dice.randrange(max(1, len(self.files[name])))
        return self.dice.choice(self._places[name])

    def other_place(self, content: bytearray) -> int:
        """Return another place of structure in the same file."""
        name = next(name for name, known in self.files.items() if known is content)
        return min(self._place(name), max(0, len(content) - 1))


def _byte(content: bytearray, at: int, case: Mutation) -> None:
    content[at] = case.dice.randrange(256)


def _bit(content: bytearray, at: int, case: Mutation) -> None:
    content[at] ^= 1 << case.dice.randrange(8)


def _number(content: bytearray, at: int, case: Mutation) -> None:
    size = case.dice.choice((2, 4, 4, 8, 8))
    value = case.dice.choice(STRANGE + VERY_STRANGE * (size == 8)) & (2 ** (8 * size) - 1)
    start = at - at % size
    order = case.dice.choice(("little", "big"))
    content[start : start + size] = value.to_bytes(size, order)  # type: ignore[arg-type]


def _nearby(content: bytearray, at: int, case: Mutation) -> None:
    """Change a number by a little, or double it: still in bounds, and wrong."""
    code = case.dice.choice(("<I", ">I", "<Q", ">Q", "<H", ">H"))
    size = struct.calcsize(code)
    start = at - at % size
    if start + size > len(content):
        return
    (value,) = struct.unpack_from(code, content, start)
    by = case.dice.choice((1, -1, 8, -8, 128, 4096, -4096, 2**20, value, -(value // 2)))
    struct.pack_into(code, content, start, (value + by) % 2 ** (8 * size))


def _copy(content: bytearray, at: int, case: Mutation) -> None:
    source = case.other_place(content)
    size = case.dice.choice((4, 8, 16, 64, 512, 4096))
    piece = content[source : source + size]
    content[at : at + len(piece)] = piece


def _zeros(content: bytearray, at: int, case: Mutation) -> None:
    size = min(case.dice.choice((1, 8, 64, 512, 4096)), len(content) - at)
    content[at : at + size] = bytes(size)


def _insert(content: bytearray, at: int, case: Mutation) -> None:
    content[at:at] = case.dice.randbytes(case.dice.choice((1, 4, 512, 512, 4096)))


def _delete(content: bytearray, at: int, case: Mutation) -> None:
    del content[at : at + case.dice.choice((1, 4, 512, 512, 4096))]


def _cut(content: bytearray, at: int, case: Mutation) -> None:
    """Cut the file off, seldom at the place itself: most of it is behind all structure then."""
    del content[at if case.dice.random() < 1 / 4 else case.dice.randrange(at, len(content)) :]


def _text(content: bytearray, at: int, case: Mutation) -> None:
    """Change a word or number of a text, where one is near."""
    lines = bytes(content[at : at + 2048])
    found = list(re.finditer(rb"[A-Za-z0-9_.\-]{1,64}", lines))
    if not found:
        return
    word = case.dice.choice(found)
    new = case.dice.choice(WORDS)
    if word[0].isdigit() and case.dice.random() < 1 / 2:
        new = str(case.dice.choice(STRANGE + VERY_STRANGE)).encode()
    # Of the same length where it may be: what follows stays where it was.
    if case.dice.random() < 1 / 2 and len(new) <= len(word[0]):
        new = new.ljust(len(word[0]))
    content[at + word.start() : at + word.end()] = new


Change = Callable[[bytearray, int, Mutation], None]
CHANGES: tuple[Change, ...] = (
    *(_byte, _bit, _number, _number, _number, _nearby, _nearby, _copy, _copy),
    *(_zeros, _insert, _delete, _cut, _text),
)


def mend(content: bytearray) -> None:
    """Make the checksums of a format right that the file still looks like."""
    if content.startswith(b"vhdxfile"):
        _mend_vhdx(content)
    if content[-512:].startswith(b"conectix") or content.startswith(b"conectix"):
        mend_vhd(content)


def _mend_vhdx(content: bytearray) -> None:
    structures = [(offset, 4 * KIB) for offset in HEADER_OFFSETS]
    structures += [(offset, 64 * KIB) for offset in REGION_TABLE_OFFSETS]
    for header in HEADER_OFFSETS:
        if header + 80 <= len(content):
            length, start = struct.unpack_from("<IQ", content, header + 68)
            structures += _log_entries(content, start, length)
    for offset, length in structures:
        if offset + length <= len(content):
            structure = bytes(content[offset : offset + length])
            content[offset : offset + 8] = sealed(structure, 0, length)[:8]


def _log_entries(content: bytearray, start: int, length: int) -> list[tuple[int, int]]:
    found = []
    for at in range(start, min(start + min(length, 8 * 1024 * KIB), len(content) - 16), 4 * KIB):
        if content[at : at + 4] == b"loge":
            (entry_bytes,) = struct.unpack_from("<I", content, at + 8)
            if 64 <= entry_bytes <= 1024 * KIB and entry_bytes % (4 * KIB) == 0:
                found.append((at, entry_bytes))
    return found
