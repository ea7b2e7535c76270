"""The journals of running transfers, in the state store; each can be thrown away."""

from __future__ import annotations

import hashlib

from imageport.errors import FileMissing
from imageport.storage.folder import Folder
from imageport.transfer.journal import Journal

PATH = "journals"


class Journals:
    """Opens one journal per transfer by any text that identifies it."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def open(self, key: str) -> Journal:
        """Return the journal of ``key``, new or with what an earlier run left in it."""
        self._folder.make_folder(PATH)
        return Journal(self._folder, _name(key))

    def delete(self, key: str) -> None:
        """Delete the journal; one that is not there is no error."""
        self._folder.delete(_name(key))

    def keys(self) -> list[str]:
        """Return the file names of all journals, for the janitor and for tests."""
        try:
            return [entry.name for entry in self._folder.list(PATH)]
        except FileMissing:
            return []


def _name(key: str) -> str:
    return f"{PATH}/{hashlib.sha256(key.encode()).hexdigest()[:40]}.journal"
