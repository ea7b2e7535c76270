# References: Microsoft "General syntax rules for INF files", "INF Strings section".
"""The text of an INF file: its sections, lines and strings; what they mean is read by `inf`.

The operator's folder is input like any other: sizes and counts are bounded, macros expand once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from imageport.errors import InputError

MAX_INF_BYTES = 4 * 1024 * 1024
_MAX_LINES = 100_000
_MAX_STRING = 4096
"""Characters of one entry of [Strings]; Windows takes no longer ones either."""
_MAX_EXPANDED_FIELD = 16_384
"""A longer field is binary data, in which no macro stands."""
_MACRO = re.compile(r"%(?:%|([^%\s]{1,255})%)")


@dataclass(frozen=True, slots=True)
class InfLine:
    """One line: ``key=value,value…`` or just fields; macros are not expanded yet."""

    text: str
    key: str
    """What stands before ``=``, "" when there is none."""
    values: tuple[str, ...]
    """The fields after ``=``, or of the whole line."""

    @classmethod
    def read(cls, text: str) -> InfLine:
        """Take a line apart."""
        key, *rest = _split(text, "=", 1)
        values = _split(rest[0] if rest else text, ",", -1)
        return cls(text, unquoted(key) if rest else "", tuple(map(unquoted, values)))

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the fields of the whole line; in lists ``=`` means nothing."""
        return tuple(unquoted(value) for value in _split(self.text, ",", -1))


class InfText:
    """Sections by name without regard to case; a section that stands twice continues.

    Raises:
        InputError: too large.
    """

    def __init__(self, data: bytes) -> None:
        self._sections: dict[str, list[InfLine]] = {}
        self._spelled: dict[str, str] = {}
        lines = _decoded(data).splitlines()
        if len(lines) > _MAX_LINES:
            raise InputError(f"Bad driver INF: found {len(lines)} lines, needed {_MAX_LINES}.")
        current: list[InfLine] | None = None
        for line in _joined(lines):
            if line.startswith("["):
                name = line[1:].partition("]")[0].strip()
                self._spelled.setdefault(name.lower(), name)
                current = self._sections.setdefault(name.lower(), [])
            elif current is not None:
                current.append(InfLine.read(line))
        self.strings = {line.key.lower(): line.values[0] for line in self.section("strings")}
        longest = max(map(len, self.strings.values()), default=0)
        if longest > _MAX_STRING:
            raise InputError(
                f"Bad driver INF: found a string of {longest} characters, needed {_MAX_STRING}."
            )

    def section(self, name: str) -> list[InfLine]:
        """Return a section's lines, empty when there is none."""
        return self._sections.get(name.lower(), [])

    def spelled(self, name: str) -> str:
        """Return a section's name as its head spells it, "" when there is none."""
        return self._spelled.get(name.lower(), "")

    def values(self, section: str, key: str) -> list[str]:
        """Return the values of the first line with that key, macros expanded."""
        for line in self.section(section):
            if line.key.lower() == key.lower():
                return [self.expand(value) for value in line.values]
        return []

    def all_values(self, section: str, key: str) -> list[str]:
        """Return the values of every line with that key, macros expanded, empty ones dropped."""
        lines = [line for line in self.section(section) if line.key.lower() == key.lower()]
        return [self.expand(value) for line in lines for value in line.values if value]

    def first(self, section: str, key: str) -> str:
        """Return the first of `values`, or ""."""
        return next(iter(self.values(section, key)), "")

    def expand(self, text: str) -> str:
        """Replace ``%name%`` by the [Strings] entry, once, and ``%%`` by a percent sign."""
        if len(text) > _MAX_EXPANDED_FIELD:
            return text
        return _MACRO.sub(self._expanded, text)

    def _expanded(self, match: re.Match[str]) -> str:
        name = match[1]
        return "%" if name is None else self.strings.get(name.lower(), match[0])


def unquoted(text: str) -> str:
    """Return a field without its quotes; two in a row inside stand for one."""
    bare = text.strip()
    if len(bare) >= 2 and bare[0] == bare[-1] == '"':
        return bare[1:-1].replace('""', '"')
    return bare.strip('"')


def _decoded(data: bytes) -> str:
    if len(data) > MAX_INF_BYTES:
        raise InputError(
            f"Bad driver INF: found {len(data)} bytes, needed {MAX_INF_BYTES} or less."
        )
    for mark, encoding in (
        (b"\xff\xfe", "utf-16-le"),
        (b"\xfe\xff", "utf-16-be"),
        (b"\xef\xbb\xbf", "utf-8"),
    ):
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252", "replace")


def _joined(lines: list[str]) -> Iterator[str]:
    """Yield lines without comments, continued lines joined, empty lines dropped."""
    pending: list[str] = []
    for raw in lines:
        line = _without_comment(raw).strip()
        if line.endswith("\\") and not line.startswith("["):
            pending.append(line[:-1])
            continue
        whole = "".join([*pending, line])
        pending.clear()
        if whole:
            yield whole
    if any(pending):
        yield "".join(pending)


def _without_comment(line: str) -> str:
    quoted = False
    for at, character in enumerate(line):
        if character == '"':
            quoted = not quoted
        elif character == ";" and not quoted:
            return line[:at]
    return line


def _split(text: str, mark: str, most: int) -> list[str]:
    """Split at a mark outside quotes."""
    parts: list[str] = []
    start, quoted = 0, False
    for at, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character == mark and not quoted:
            parts.append(text[start:at])
            start = at + 1
            if len(parts) == most:
                break
    return [*parts, text[start:]]
