# References: XenServer Management API, "Wire protocol": integers are strings, absent references
# are OpaqueRef:NULL.
"""Records as the API sends them: each field's type is checked when it is read."""

from __future__ import annotations

from typing import Any, Final

from imageport.errors import HypervisorRefused

NULL: Final = "OpaqueRef:NULL"


class ApiRecord:
    """One record; a field that is missing or of another type is `HypervisorRefused`."""

    def __init__(self, kind: str, value: Any) -> None:
        self._kind = kind
        if not isinstance(value, dict):
            raise self._bad("record", value, "a structure")
        self._fields: dict[str, Any] = value

    def text(self, name: str) -> str:
        """Return a text, a reference or an enumeration's value."""
        value = self._fields.get(name)
        if not isinstance(value, str):
            raise self._bad(name, value, "a text")
        return value

    def number(self, name: str) -> int:
        """Return an integer, which is sent as a text."""
        text = self.text(name)
        if not (text.isascii() and text.isdigit() and len(text) < 20):
            raise self._bad(name, text, "a number")
        return int(text)

    def flag(self, name: str) -> bool:
        """Return a truth value."""
        value = self._fields.get(name)
        if not isinstance(value, bool):
            raise self._bad(name, value, "true or false")
        return value

    def texts(self, name: str) -> list[str]:
        """Return a set of texts or references."""
        value = self._fields.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._bad(name, value, "a list of texts")
        return value

    def mapping(self, name: str) -> dict[str, str]:
        """Return a map of texts."""
        found = self.structure(name)
        if not all(isinstance(item, str) for item in found.values()):
            raise self._bad(name, found, "a map of texts")
        return found

    def structure(self, name: str) -> dict[str, Any]:
        """Return a map of anything."""
        value = self._fields.get(name)
        if not isinstance(value, dict):
            raise self._bad(name, value, "a map")
        return {str(key): item for key, item in value.items()}

    def time(self, name: str) -> str:
        """Return a time as ISO 8601; empty where it cannot be read."""
        text = str(self._fields.get(name, ""))
        if len(text) < 17 or text[8] != "T":
            return ""
        day = f"{text[:4]}-{text[4:6]}-{text[6:8]}"
        return f"{day}T{text[9:17]}Z"

    def _bad(self, name: str, value: Any, needed: str) -> HypervisorRefused:
        return HypervisorRefused(
            f"Bad {self._kind}.{name} from XenServer: found {type(value).__name__}, needed "
            f"{needed}."
        )
