"""How far a stage of several steps has come, so that a run started again does not start over."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from imageport.errors import FileMissing, StateError
from imageport.storage.folder import Folder

_FOLDER = "checkpoints"
_LIMIT_BYTES = 16 * 1024 * 1024


class Checkpoint:
    """One small record per piece of work, replaced atomically; disposable once the work is done."""

    def __init__(self, folder: Folder, *work: str) -> None:
        key = hashlib.sha256("\0".join(work).encode()).hexdigest()[:40]
        self._folder = folder
        self._name = f"{_FOLDER}/{key}.json"

    def load(self) -> dict[str, Any]:
        """Return what was saved; empty when nothing was."""
        try:
            text = self._folder.read_bytes(self._name, _LIMIT_BYTES)
        except FileMissing:
            return {}
        try:
            value = json.loads(text)
        except ValueError as error:
            raise self._bad(str(error)) from error
        if not isinstance(value, dict):
            raise self._bad(f"found {type(value).__name__}, needed an object")
        return value

    def save(self, value: dict[str, Any]) -> None:
        """Replace what was saved."""
        self._folder.make_folder(_FOLDER)
        self._folder.write_bytes(self._name, json.dumps(value, sort_keys=True).encode())

    def clear(self) -> None:
        """Forget; may be called twice."""
        self._folder.delete(self._name)

    def _bad(self, cause: str) -> StateError:
        return StateError(
            f"Bad checkpoint '{self._folder.location}/{self._name}': {cause}.",
            hint="Delete the file: the stage then starts over.",
        )
