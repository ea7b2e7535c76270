"""JSON documents of an emulator that outlive its process, a file each."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Json = dict[str, Any]


class KeptDocuments:
    """A folder of documents by key; not locked: callers hold the emulator's lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def all(self) -> Iterator[Json]:
        """Yield what is kept; what a killed process had half written is not."""
        for file in sorted(self._folder.glob("*.json")):
            found: Json = json.loads(file.read_text())
            yield found

    def keep(self, key: str, document: Json) -> None:
        """Write a document, or what has become of it."""
        part = self._file(key).with_suffix(".part")
        with part.open("w") as file:
            json.dump(document, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        part.rename(self._file(key))

    def drop(self, key: str) -> None:
        """Remove a document; one that is not there is no error."""
        self._file(key).unlink(missing_ok=True)

    def _file(self, key: str) -> Path:
        # Keys hold slashes, and may be longer than a file's name.
        return self._folder / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"
