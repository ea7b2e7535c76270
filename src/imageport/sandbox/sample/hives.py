"""Registry hives from text: an empty hive written here, then filled by hivexregedit.

References: the regf format (base block, hbin, nk and sk cells). hivexregedit is libhivex's own
program, so what our engine later reads was not written by our engine.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Mapping
from pathlib import Path

from imageport.sandbox.sample.programs import run

REGISTRY_TEXTS = Path(__file__).parent / "registry"
_PAGE = 4096
_NO_CELL = 0xFFFFFFFF
_FILETIME = 133_485_408_000_000_000
"""2024-01-01T00:00:00Z in 100 ns since 1601: every key says the same, so builds are alike."""
_SECURITY_SELF_RELATIVE = bytes.fromhex(
    "0100 0480 4800 0000 5800 0000 0000 0000 1400 0000"  # owner, group, DACL offsets
    "0200 3400 0200 0000"  # DACL of two entries
    "0002 1400 3f00 0f00 0101 0000 0000 0005 1200 0000"  # SYSTEM: all access
    "0002 1800 3f00 0f00 0102 0000 0000 0005 2000 0000 2002 0000"  # Administrators: all
    "0102 0000 0000 0005 2000 0000 2002 0000"  # owner: Administrators
    "0101 0000 0000 0005 1200 0000"  # group: SYSTEM
)


def empty_hive(file_name: str) -> bytes:
    """Return a hive with nothing but its root key; clean: both sequence numbers are equal."""
    root_at = 0x20
    security_at = root_at + len(_cell(_root_key(0)))
    cells = _cell(_root_key(security_at)) + _cell(_security_key(security_at))
    free = _PAGE - 0x20 - len(cells)
    bin_header = struct.pack("<4sIIIIQI", b"hbin", 0, _PAGE, 0, 0, _FILETIME, 0)
    page = bin_header + cells + struct.pack("<i", free) + b"\0" * (free - 4)
    return _base_block(file_name, root_at) + page


def base_block_checksum(block: bytes) -> int:
    """Return the checksum of a base block: XOR of its first 127 words, never 0 or all ones."""
    value = 0
    for (word,) in struct.iter_unpack("<I", block[:508]):
        value ^= word
    return {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(value, value)


def make_hive(path: Path, prefix: str, texts: list[str]) -> None:
    r"""Write a hive from registry texts.

    Args:
        path: the file to write; its name is stored in the base block.
        prefix: the key that the hive is mounted at, e.g. ``HKEY_LOCAL_MACHINE\SYSTEM``.
        texts: contents of ``.reg`` files; see `expand` for the two notations added here.
    """
    path.write_bytes(empty_hive(path.name))
    source = path.with_suffix(".reg")
    whole = with_parents(prefix, "\n\n".join(texts))
    source.write_text("Windows Registry Editor Version 5.00\n\n" + whole, encoding="utf-8")
    run(["hivexregedit", "--merge", path, "--prefix", prefix, source])
    source.unlink()


def merge_text(path: Path, text: str) -> None:
    r"""Change a hive by a registry text whose keys start at its root, like ``[\Select]``."""
    source = path.with_suffix(".reg")
    source.write_text("Windows Registry Editor Version 5.00\n\n" + text + "\n", encoding="utf-8")
    run(["hivexregedit", "--merge", path, source])
    source.unlink()


def with_parents(prefix: str, text: str) -> str:
    """Insert the parents of every key that no line before it named.

    Windows makes them by itself when a text is merged; hivexregedit refuses the key.
    """
    known = {prefix.lower()}
    lines = []
    for line in text.splitlines():
        if line.startswith("[") and line.endswith("]") and not line.startswith("[-"):
            names = line[1:-1].split("\\")
            paths = ["\\".join(names[:depth]) for depth in range(1, len(names))]
            for path in paths[prefix.count("\\") + 1 :]:
                if path.lower() not in known:
                    known.add(path.lower())
                    lines.append(f"[{path}]\n")
            known.add(line[1:-1].lower())
        lines.append(line)
    return "\n".join(lines) + "\n"


def registry_text(name: str, values: Mapping[str, str] | None = None) -> str:
    """Return one of the package's ``.reg`` texts, ``{{name}}`` replaced and notation expanded."""
    text = (REGISTRY_TEXTS / name).read_text(encoding="utf-8")
    for key, value in (values or {}).items():
        text = text.replace("{{" + key + "}}", value)
    return expand(text)


def expand(text: str) -> str:
    """Turn ``expand:"…"`` and ``multi:"…","…"`` into the notation that hivexregedit knows.

    Real ``.reg`` files write both as bytes, which nobody can read or review.
    """
    text = re.sub(r"=expand:(\".*\")", r"=str(2):\1", text)
    return re.sub(r"=multi:(.*)", _multi, text)


def _multi(match: re.Match[str]) -> str:
    items = [item.replace("\\\\", "\\") for item in re.findall(r'"([^"]*)"', match[1])]
    data = "".join(item + "\0" for item in [*items, ""]).encode("utf-16-le")
    return "=hex(7):" + ",".join(f"{byte:02x}" for byte in data)


def _cell(data: bytes) -> bytes:
    size = -(-(len(data) + 4) // 8) * 8
    return struct.pack("<i", -size) + data.ljust(size - 4, b"\0")


def _root_key(security_at: int) -> bytes:
    name = b"ROOT"
    flags = 0x2C  # hive root, cannot be deleted, name in ASCII
    key = struct.pack("<2sHQIIII", b"nk", flags, _FILETIME, 0, _NO_CELL, 0, 0)
    key += struct.pack("<IIIII", _NO_CELL, _NO_CELL, 0, _NO_CELL, security_at)
    key += struct.pack("<IIIIIIHH", _NO_CELL, 0, 0, 0, 0, 0, len(name), 0)
    return key + name


def _security_key(own_offset: int) -> bytes:
    descriptor = _SECURITY_SELF_RELATIVE
    links = struct.pack("<II", own_offset, own_offset)
    head = struct.pack("<2sH", b"sk", 0) + links + struct.pack("<II", 1, len(descriptor))
    return head + descriptor


def _base_block(file_name: str, root_at: int) -> bytes:
    block = struct.pack("<4sIIQIIIIIII", b"regf", 1, 1, _FILETIME, 1, 3, 0, 1, root_at, _PAGE, 1)
    block = (block + file_name.encode("utf-16-le")[-62:]).ljust(508, b"\0")
    return (block + struct.pack("<I", base_block_checksum(block))).ljust(_PAGE, b"\0")
