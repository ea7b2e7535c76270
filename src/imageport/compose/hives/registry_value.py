# References: winnt.h registry value types; [MS-RRP] 2.2.9.
"""A registry value: its type and its bytes, with the readings that people expect."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

_SHOWN_BYTES = 64
"""Longer binary values appear in reports as their digest: nobody reads them."""


class Kind(IntEnum):
    """Registry value types."""

    NONE = 0
    SZ = 1
    EXPAND_SZ = 2
    BINARY = 3
    DWORD = 4
    MULTI_SZ = 7
    QWORD = 11


@dataclass(frozen=True, slots=True)
class Value:
    """One value; ``kind`` is a plain number because real hives hold types that have no name."""

    kind: int
    data: bytes

    @classmethod
    def dword(cls, number: int) -> Value:
        """Return a REG_DWORD."""
        return cls(Kind.DWORD, struct.pack("<I", number))

    @classmethod
    def text(cls, text: str) -> Value:
        """Return a REG_SZ."""
        return cls(Kind.SZ, (text + "\0").encode("utf-16-le"))

    @classmethod
    def expandable(cls, text: str) -> Value:
        """Return a REG_EXPAND_SZ."""
        return cls(Kind.EXPAND_SZ, (text + "\0").encode("utf-16-le"))

    @classmethod
    def texts(cls, texts: list[str]) -> Value:
        """Return a REG_MULTI_SZ."""
        joined = "".join(text + "\0" for text in texts) + "\0"
        return cls(Kind.MULTI_SZ, joined.encode("utf-16-le"))

    def as_number(self) -> int | None:
        """Return a DWORD's number, None when this is no whole DWORD."""
        if self.kind != Kind.DWORD or len(self.data) != 4:
            return None
        return int(struct.unpack("<I", self.data)[0])

    def as_text(self) -> str:
        """Return the text before the first NUL; "" when this is no text."""
        if self.kind not in {Kind.SZ, Kind.EXPAND_SZ}:
            return ""
        return _decoded(self.data).split("\0", 1)[0]

    def as_texts(self) -> list[str]:
        """Return the texts of a REG_MULTI_SZ (or the one text of a REG_SZ), empty ones dropped."""
        if self.kind not in {Kind.SZ, Kind.EXPAND_SZ, Kind.MULTI_SZ}:
            return []
        return [text for text in _decoded(self.data).split("\0") if text]

    def render(self) -> str:
        """Return one line for reports: the type and what it says."""
        number = self.as_number()
        if number is not None:
            return f"REG_DWORD {number}"
        if self.kind in {Kind.SZ, Kind.EXPAND_SZ}:
            return printable(f"REG_{Kind(self.kind).name} {self.as_text()}".rstrip())
        if self.kind == Kind.MULTI_SZ:
            return printable(f"REG_MULTI_SZ {' | '.join(self.as_texts())}".rstrip())
        name = f"REG_{Kind(self.kind).name}" if self.kind in set(Kind) else f"type {self.kind:#x}"
        if len(self.data) <= _SHOWN_BYTES:
            return f"{name} {self.data.hex()}".rstrip()
        return f"{name} {len(self.data)} bytes sha256:{hashlib.sha256(self.data).hexdigest()}"

    def digest(self) -> str:
        """Return what stands in reports for a value that must not be shown."""
        return f"sha256:{hashlib.sha256(self.data).hexdigest()}"


def printable(text: str) -> str:
    r"""Return a guest's text as one line that moves no cursor: other characters as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def _decoded(data: bytes) -> str:
    return data[: len(data) & ~1].decode("utf-16-le", "replace")
