"""A hive file through libhivex' own programs: exported as text, changed by merged text."""

from __future__ import annotations

import re
import struct
import tempfile
from pathlib import Path

from imageport.sandbox.guest_player.programs import run

Key = dict[str, "Value"]
Value = tuple[int, bytes]
"""Registry type and raw data."""
SZ, EXPAND_SZ, BINARY, DWORD, MULTI_SZ = 1, 2, 3, 4, 7


def is_clean(hive: bytes) -> bool:
    """Tell whether the base block is sound and the last write to the hive was finished."""
    if len(hive) < 4096 or hive[:4] != b"regf":
        return False
    checksum = 0
    for (word,) in struct.iter_unpack("<I", hive[:508]):
        checksum ^= word
    checksum = {0: 1, 0xFFFFFFFF: 0xFFFFFFFE}.get(checksum, checksum)
    first, second, stored = (struct.unpack_from("<I", hive, at)[0] for at in (4, 8, 508))
    return bool(first == second and stored == checksum)


class Hive:
    """One hive: exported whole when it is first asked, edits collected and merged by `flush`.

    The program takes as long to start as to export all of a sample's hive.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._exported: dict[str, Key] = {}
        self._edits: list[str] = []
        self._named: set[str] = set()

    def subtree(self, key: str) -> dict[str, Key]:
        """Return every key at and below ``key``: lower-case path → values by lower-case name."""
        wanted = key.lower()
        below = f"{wanted}\\" if wanted else ""
        return {
            path: values
            for path, values in self._keys().items()
            if path == wanted or path.startswith(below)
        }

    def key(self, path: str) -> Key | None:
        """Return one key's values, None when there is no such key."""
        return self._keys().get(path.lower())

    def children(self, key: str) -> list[str]:
        """Return the names directly below a key, in lower case."""
        depth = key.count("\\") + 1 if key else 0
        below = (path.split("\\") for path in self.subtree(key) if path != key.lower())
        return sorted({parts[depth] for parts in below})

    def set(self, key: str, values: dict[str, Value]) -> None:
        """Set values of a key, which is made if it is missing; ``""`` is the default value."""
        parts = key.split("\\")
        for depth in range(1, len(parts)):
            parent = "\\".join(parts[:depth])
            if parent.lower() not in self._named:
                self._edits.append(f"[\\{parent}]\n")
                self._named.add(parent.lower())
        lines = [f"[\\{key}]"]
        for name, (kind, data) in values.items():
            shown = f'"{_escaped(name)}"' if name else "@"
            lines.append(f"{shown}=hex({kind:x}):" + ",".join(f"{byte:02x}" for byte in data))
        self._named.add(key.lower())
        self._edits.append("\n".join(lines) + "\n")

    def delete(self, key: str) -> None:
        """Delete a key with all below it."""
        self._edits.append(f"[-\\{key}]\n")
        self._named = {name for name in self._named if not name.startswith(key.lower())}

    def unset(self, key: str, name: str) -> None:
        """Delete one value of a key."""
        self._edits.append(f'[\\{key}]\n"{_escaped(name)}"=-\n')

    def flush(self) -> None:
        """Write what was collected; the file is rewritten in place."""
        if not self._edits:
            return
        with tempfile.NamedTemporaryFile("w", suffix=".reg", encoding="utf-8") as text:
            text.write("Windows Registry Editor Version 5.00\n\n" + "\n".join(self._edits))
            text.flush()
            run("hivexregedit", "--merge", self._path, text.name)
        self._edits.clear()
        self._named.clear()
        self._exported.clear()

    def _keys(self) -> dict[str, Key]:
        if not self._exported:
            export = run("hivexregedit", "--export", self._path, "\\")
            self._exported = _parse(export.decode("utf-8", "replace"))
        return self._exported


def dword(key: Key | None, name: str, missing: int = -1) -> int:
    """Return a number, or ``missing``."""
    kind, data = (key or {}).get(name.lower(), (0, b""))
    return int.from_bytes(data[:4], "little") if kind == DWORD else missing


def text(key: Key | None, name: str) -> str:
    """Return a string, "" when it is not there."""
    return next(iter(texts(key, name)), "")


def texts(key: Key | None, name: str) -> list[str]:
    """Return the strings of a value of one or several."""
    kind, data = (key or {}).get(name.lower(), (0, b""))
    if kind not in {SZ, EXPAND_SZ, MULTI_SZ}:
        return []
    return [part for part in data.decode("utf-16-le", "replace").split("\0") if part]


def number(value: int) -> Value:
    """Return a REG_DWORD."""
    return DWORD, struct.pack("<I", value)


def string(value: str, kind: int = SZ) -> Value:
    """Return a REG_SZ or REG_EXPAND_SZ."""
    return kind, (value + "\0").encode("utf-16-le")


def strings(*values: str) -> Value:
    """Return a REG_MULTI_SZ."""
    return MULTI_SZ, "".join(value + "\0" for value in (*values, "")).encode("utf-16-le")


_NAME = re.compile(r'^(?:@|"((?:[^"\\]|\\.)*)")=(.*)$', re.DOTALL)


def _parse(export: str) -> dict[str, Key]:
    found: dict[str, Key] = {}
    values: Key = {}
    for line in export.splitlines():
        if line.startswith("[") and line.endswith("]"):
            values = found.setdefault(line[2:-1].lower(), {})
        elif match := _NAME.match(line):
            name = re.sub(r"\\(.)", r"\1", match[1] or "")
            values[name.lower()] = _value(match[2])
    return found


def _value(shown: str) -> Value:
    if shown.startswith("dword:"):
        return DWORD, struct.pack("<I", int(shown[6:], 16))
    match = re.match(r"hex(?:\(([0-9a-f]+)\))?:(.*)$", shown)
    if match is None:
        return SZ, (shown.strip('"') + "\0").encode("utf-16-le")
    return int(match[1] or "3", 16), bytes.fromhex(match[2].replace(",", ""))


def _escaped(name: str) -> str:
    return name.replace("\\", "\\\\").replace('"', '\\"')
