"""The resources of the emulated project; those that outlive the emulator are files."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from imageport.sandbox.gcp.gce_messages import Json, not_found
from imageport.sandbox.kept_documents import KeptDocuments

PRIVATE: Final = "imageport"
"""Member with what only the emulator knows of a resource."""
_ENDING: Final = "instances"
"""The type that ends with the emulator: its machines do."""


class ResourceTable:
    """Documents by path, ``projects/P/zones/Z/disks/N``; callers hold the emulator's lock."""

    def __init__(self, folder: Path) -> None:
        self._kept = KeptDocuments(folder)
        self._documents: dict[str, Json] = {
            kept["path"]: kept["document"] for kept in self._kept.all()
        }

    def get(self, path: str) -> Json | None:
        """Return a resource, None if there is none."""
        return self._documents.get(path)

    def require(self, path: str) -> Json:
        """Return a resource; a GceRefusal if there is none."""
        found = self._documents.get(path)
        if found is None:
            raise not_found(path)
        return found

    def put(self, path: str, document: Json) -> None:
        """Keep a resource, new or changed."""
        self._documents[path] = document
        if path.split("/")[-2] != _ENDING:
            self._kept.keep(path, {"path": path, "document": document})

    def drop(self, path: str) -> None:
        """Forget a resource; one that is not there is no error."""
        self._documents.pop(path, None)
        self._kept.drop(path)

    def below(self, collection: str) -> Iterator[tuple[str, Json]]:
        """Yield path and document of all in a collection, ``projects/P/global/images``, by name."""
        start = f"{collection}/"
        yield from [item for item in sorted(self._documents.items()) if item[0].startswith(start)]

    def of_type(self, kind: str) -> Iterator[tuple[str, Json]]:
        """Yield all of a type, ``disks``, wherever they are."""
        found = sorted(self._documents.items())
        yield from [item for item in found if item[0].split("/")[-2] == kind]


def shown(document: Json) -> Json:
    """Return a resource as clients see it."""
    return {name: value for name, value in document.items() if name != PRIVATE}
