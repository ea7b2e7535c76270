"""The block manifests of generations: what the next upload is compared with."""

from __future__ import annotations

import hashlib
import secrets

from imageport.errors import FileMissing, ImageportError
from imageport.storage.folder import Folder
from imageport.transfer.manifest import Manifest

PATH = "manifests"
LIMIT_BYTES = 1024 * 1024 * 1024
"""33 bytes a block: more than the largest disk of any cloud needs."""


class Manifests:
    """One manifest per generation; written once, replaced whole."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def put(self, generation_id: str, manifest: Manifest) -> None:
        """Store the manifest of a generation, replacing an older one."""
        self._folder.make_folder(PATH)
        part = f"{PATH}/{secrets.token_hex(12)}.part"
        try:
            with self._folder.create(part) as file:
                file.write_at(0, manifest.to_bytes())
                file.flush()
            self._folder.rename(part, _name(generation_id), replace=True)
        except ImageportError:
            self._folder.delete(part)
            raise

    def get(self, generation_id: str) -> Manifest | None:
        """Return the manifest, or None; a damaged one raises `StateError` naming its file."""
        name = _name(generation_id)
        try:
            data = self._folder.read_bytes(name, LIMIT_BYTES)
        except FileMissing:
            return None
        return Manifest.from_bytes(data, f"{self._folder.location}/{name}")

    def delete(self, generation_id: str) -> None:
        """Delete the manifest; one that is not there is no error."""
        self._folder.delete(_name(generation_id))


def _name(generation_id: str) -> str:
    return f"{PATH}/{hashlib.sha256(generation_id.encode()).hexdigest()[:40]}.manifest"
