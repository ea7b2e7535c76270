# References: Microsoft, How to add, modify, or delete registry subkeys and values by a .reg file.
r"""Registry texts of the operator: read whole and judged before anything is changed.

Taken are ``HKEY_LOCAL_MACHINE\SYSTEM`` and ``\SOFTWARE``; everything else is refused with its line.
No message quotes what a line says: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from imageport.compose.first_boot.plan import SERVICE
from imageport.compose.hives.registry_value import Kind, Value
from imageport.errors import InputError

CURRENT = "CurrentControlSet"
_HEADER = "Windows Registry Editor Version 5.00"
_MAX_EDITS = 10_000
_MAX_NAME, _MAX_VALUE_NAME = 255, 16_383
"""Windows' own bounds of a key's and a value's name, in characters."""
_MAX_DATA_BYTES = 16_344
"""Windows keeps larger data in pieces (`cell_layout.MAX_SEGMENT_BYTES`), which libhivex cannot."""
_MAX_DEPTH = 64
_KEY = re.compile(r"\[(-?)HKEY_LOCAL_MACHINE\\(SYSTEM|SOFTWARE)((?:\\[^\\]+)*)\]", re.IGNORECASE)
_NAMED = re.compile(r'(?:(@)|"((?:[^"\\]|\\["\\])*)")\s*=\s*(.*)')
_TEXT = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_DWORD = re.compile(r"dword:([0-9a-f]{1,8})", re.IGNORECASE)
_HEX = re.compile(r"hex(?:\(([0-9a-f]{1,8})\))?:([0-9a-f,\s]*)", re.IGNORECASE)
_HEX_KINDS: dict[int, Kind] = {int(kind): kind for kind in Kind}
_SIZES = {Kind.DWORD: 4, Kind.QWORD: 8}
_TEXT_KINDS = {Kind.SZ, Kind.EXPAND_SZ, Kind.MULTI_SZ}
_SET = re.compile(r"^(?:currentcontrolset|controlset\d{3})(?:\\|$)")
_KEPT = {
    "SYSTEM": {"", "select", "setup", "set", "set\\control", "set\\enum", "set\\services"},
    "SOFTWARE": {
        "",
        "classes",
        "microsoft",
        "microsoft\\windows",
        "microsoft\\windows\\currentversion",
        "microsoft\\windows nt",
        "microsoft\\windows nt\\currentversion",
    },
}
"""Keys without which Windows does not start; ``set`` is any control set."""
_OWN_SERVICE = f"set\\services\\{SERVICE}".lower()


@dataclass(frozen=True, slots=True)
class RegistryEdit:
    """One edit: of a key when ``name`` is None, else of a value."""

    line: int
    hive: str
    key: str
    """Below the hive; may begin with `CURRENT`, which means every control set."""
    name: str | None
    value: Value | None
    """None with a name, or ``deletes`` without one: it goes."""
    deletes: bool = False


def parse_registry_text(data: bytes) -> tuple[RegistryEdit, ...]:
    """Read a ``.reg`` file, UTF-16 with its mark or UTF-8.

    Raises:
        InputError: a line is not as it must be; the message begins with its number.
    """
    lines = _logical_lines(_decoded(data))
    if next(lines, (0, ""))[1] != _HEADER:
        raise InputError(f"line 1: needed '{_HEADER}'.")
    reader = _Reader()
    for number, line in lines:
        try:
            reader.take(number, line)
        except InputError as error:
            raise InputError(f"line {number}: {error.message}") from error
    return tuple(reader.edits)


@dataclass(slots=True)
class _Reader:
    """The edits so far, and the key that values belong to."""

    edits: list[RegistryEdit] = field(default_factory=list)
    hive: str = ""
    key: str = ""

    def take(self, line: int, text: str) -> None:
        """Take one line, already whole."""
        if len(self.edits) >= _MAX_EDITS:
            raise InputError(f"more than {_MAX_EDITS} edits.")
        if text.startswith("["):
            self._take_key(line, text)
        elif not self.hive:
            raise InputError("a value needs a key before it that is not deleted.")
        else:
            name, value = _value(text)
            edit = RegistryEdit(line, self.hive, self.key, name, value, deletes=value is None)
            self.edits.append(edit)

    def _take_key(self, line: int, text: str) -> None:
        match = _KEY.fullmatch(text)
        if match is None:
            raise InputError(
                "needed a key below HKEY_LOCAL_MACHINE\\SYSTEM or HKEY_LOCAL_MACHINE\\SOFTWARE."
            )
        deletes, hive, key = bool(match[1]), match[2].upper(), match[3].lstrip("\\")
        _check_key(hive, key, deletes=deletes)
        self.edits.append(RegistryEdit(line, hive, key, None, None, deletes))
        self.hive, self.key = ("", "") if deletes else (hive, key)


def _decoded(data: bytes) -> str:
    encoding = "utf-16" if data[:2] in {b"\xff\xfe", b"\xfe\xff"} else "utf-8-sig"
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InputError(f"line 1: found no UTF-16 or UTF-8 ({error.reason}).") from error


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    r"""Yield lines with their numbers: no empty ones, no comments; ``\`` continues bytes."""
    whole, start = "", 0
    for number, physical in enumerate(text.replace("\r\n", "\n").split("\n"), 1):
        line = physical.strip(" \t")
        if not whole and (not line or line.startswith(";")):
            continue
        if not line:
            raise InputError(f"line {start}: the value does not go on in the next line.")
        start = start if whole else number
        whole += line
        if whole.endswith("\\") and re.search(r"=\s*hex(\(\w+\))?:", whole):
            whole = whole[:-1]
            continue
        yield start, whole
        whole = ""
    if whole:
        raise InputError(f"line {start}: the value does not go on in the next line.")


def _check_key(hive: str, key: str, *, deletes: bool) -> None:
    parts = key.split("\\") if key else []
    if len(parts) > _MAX_DEPTH or any(len(part) > _MAX_NAME for part in parts):
        raise InputError(f"a key's name is longer than {_MAX_NAME} or deeper than {_MAX_DEPTH}.")
    if any(ord(letter) < ord(" ") for letter in key):
        raise InputError("a key's name holds a control character.")
    place = _SET.sub(lambda match: "set\\" if match[0].endswith("\\") else "set", key.lower(), 1)
    if hive == "SYSTEM" and f"{place}\\".startswith(f"{_OWN_SERVICE}\\"):
        raise InputError(f"service {SERVICE} is first boot's own.")
    if hive == "SYSTEM" and f"{place}\\".startswith("select\\"):
        raise InputError("the choice of the control set is not for own steps.")
    if deletes and place in _KEPT[hive]:
        raise InputError("Windows does not start without this key; it is never deleted whole.")


def _value(text: str) -> tuple[str, Value | None]:
    match = _NAMED.fullmatch(text)
    if match is None:
        raise InputError('needed [KEY], [-KEY], @=DATA or "NAME"=DATA on one line.')
    name = "" if match[1] else _unescaped(match[2])
    if len(name) > _MAX_VALUE_NAME or "\0" in name:
        raise InputError(f"a value's name is longer than {_MAX_VALUE_NAME} or holds a NUL.")
    return name, None if match[3].strip() == "-" else _data(match[3].strip())


def _data(text: str) -> Value:
    if match := _TEXT.fullmatch(text):
        value = Value.text(_unescaped(match[1]))
    elif match := _DWORD.fullmatch(text):
        value = Value.dword(int(match[1], 16))
    elif match := _HEX.fullmatch(text):
        value = _bytes(match[1] or "3", match[2])
    else:
        raise InputError('needed -, "TEXT", dword:NUMBER, hex:BYTES or hex(TYPE):BYTES as data.')
    if len(value.data) > _MAX_DATA_BYTES:
        raise InputError(f"a value's data is longer than {_MAX_DATA_BYTES} bytes.")
    return value


def _bytes(kind_text: str, text: str) -> Value:
    kind = _HEX_KINDS.get(int(kind_text, 16))
    if kind is None:
        raise InputError("needed hex(TYPE) with type 0, 1, 2, 3, 4, 7 or b.")
    cells = [cell.strip() for cell in text.split(",")]
    if cells[-1] == "":
        cells.pop()  # regedit takes a comma at the end
    if not all(re.fullmatch(r"[0-9a-fA-F]{1,2}", cell) for cell in cells):
        raise InputError("needed bytes of two digits, with a comma between them.")
    data = bytes(int(cell, 16) for cell in cells)
    needed = _SIZES.get(kind, len(data))
    if len(data) != needed:
        raise InputError(f"found {len(data)} bytes, needed {needed} for this type.")
    if kind in _TEXT_KINDS and len(data) % 2:
        raise InputError(f"found {len(data)} bytes of text, needed an even number.")
    return Value(kind, data)


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)
