"""The resources of the subscription; those that outlive the emulator are files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from imageport.sandbox.kept_documents import Json, KeptDocuments

ENDING = ("microsoft.compute/virtualmachines", "microsoft.network/networkinterfaces")
"""Types that end with the emulator: their machines do."""


class ResourceTable:
    """Documents by lower-case ARM id. Not locked: callers hold the emulator's lock."""

    def __init__(self, folder: Path) -> None:
        self._kept = KeptDocuments(folder)
        self._documents: dict[str, Json] = {
            str(document["id"]).lower(): document for document in self._kept.all()
        }

    def get(self, key: str) -> Json | None:
        """Return a resource by its id in any case."""
        return self._documents.get(key.lower())

    def put(self, document: Json) -> None:
        """Keep a resource, new or changed."""
        key = str(document["id"]).lower()
        self._documents[key] = document
        if str(document["type"]).lower() not in ENDING:
            self._kept.keep(key, document)

    def drop(self, key: str) -> None:
        """Forget a resource; one that is not there is no error."""
        self._documents.pop(key.lower(), None)
        self._kept.drop(key.lower())

    def of_type(self, kind: str) -> Iterator[Json]:
        """Yield all of a type, ``Microsoft.Compute/disks``, by name."""
        found = [item for item in self._documents.values() if item["type"].lower() == kind.lower()]
        yield from sorted(found, key=lambda item: str(item["name"]).lower())
