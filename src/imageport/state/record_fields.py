"""Reading the fields of a record, each checked for type and size before it is used."""

from __future__ import annotations

from typing import Any

from imageport.errors import StateError
from imageport.state.record_folder import Document, Stored, damaged

MAX_TEXT = 64 * 1024
MAX_ITEMS = 10_000


class RecordFields:
    """One record's fields; every method raises `StateError` naming the file and the field."""

    def __init__(self, document: Document, location: str) -> None:
        self._document = document
        self._location = location
        self._seen: set[str] = set()

    @classmethod
    def of(cls, stored: Stored) -> RecordFields:
        """Return the fields of a stored record."""
        return cls(stored.document, stored.location)

    def text(self, name: str, default: str | None = None) -> str:
        """Return a text of at most `MAX_TEXT` characters."""
        value = self._get(name, default)
        if not isinstance(value, str) or len(value) > MAX_TEXT:
            raise self._bad(name, f"a text of at most {MAX_TEXT} characters")
        return value

    def number(self, name: str) -> int:
        """Return a whole number from 0 to 2**63 - 1."""
        value = self._get(name, None)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**63:
            raise self._bad(name, "a whole number from 0")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Return a mapping with text keys."""
        value = self._get(name, {})
        if not isinstance(value, dict) or len(value) > MAX_ITEMS:
            raise self._bad(name, f"a mapping of at most {MAX_ITEMS} names")
        return value

    def texts(self, name: str) -> dict[str, str]:
        """Return a mapping from text to text."""
        value = self.mapping(name)
        if not all(isinstance(item, str) and len(item) <= MAX_TEXT for item in value.values()):
            raise self._bad(name, "texts only")
        return value

    def items(self, name: str) -> list[RecordFields]:
        """Return a list of records inside this one."""
        value = self._get(name, [])
        if not isinstance(value, list) or len(value) > MAX_ITEMS:
            raise self._bad(name, f"a list of at most {MAX_ITEMS} items")
        if not all(isinstance(item, dict) for item in value):
            raise self._bad(name, "a list of mappings")
        return [RecordFields(item, f"{self._location}: {name}") for item in value]

    def end(self) -> None:
        """Refuse fields that nobody read: a record of another kind, or a damaged one."""
        unknown = sorted(set(self._document) - self._seen)
        if unknown:
            raise damaged(self._location, f"found unknown fields {unknown}")

    def _get(self, name: str, default: Any) -> Any:
        self._seen.add(name)
        return self._document.get(name, default)

    def _bad(self, name: str, needed: str) -> StateError:
        value = self._document.get(name, "nothing")
        return damaged(self._location, f"field '{name}': found {value!r:.80}, needed {needed}")
