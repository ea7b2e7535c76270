"""The resources of the subscription; those that outlive the emulator are files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]
ENDING = ("microsoft.compute/virtualmachines", "microsoft.network/networkinterfaces")
"""Types that end with the emulator: their machines do."""


class ResourceTable:
    """Documents by lower-case ARM id. Not locked: callers hold the emulator's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._documents: dict[str, Json] = {}
        for file in sorted(folder.glob("*.json")):
            document = json.loads(file.read_text())
            self._documents[str(document["id"]).lower()] = document

    def get(self, key: str) -> Json | None:
        """Return a resource by its id in any case."""
        return self._documents.get(key.lower())

    def put(self, document: Json) -> None:
        """Keep a resource, new or changed."""
        key = str(document["id"]).lower()
        self._documents[key] = document
        if str(document["type"]).lower() in ENDING:
            return
        part = self._file(key).with_suffix(".part")
        with part.open("w") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._file(key))

    def drop(self, key: str) -> None:
        """Forget a resource; one that is not there is no error."""
        self._documents.pop(key.lower(), None)
        self._file(key.lower()).unlink(missing_ok=True)

    def of_type(self, kind: str) -> Iterator[Json]:
        """Yield all of a type, ``Microsoft.Compute/disks``, by name."""
        found = [item for item in self._documents.values() if item["type"].lower() == kind.lower()]
        yield from sorted(found, key=lambda item: str(item["name"]).lower())

    def _file(self, key: str) -> Path:
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"
