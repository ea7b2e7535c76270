"""The catalogue: the truth about which image exists where, and where it was published."""

from __future__ import annotations

import dataclasses
from typing import Any

from imageport.errors import NameTaken, RecordMissing, StateError
from imageport.model import GenerationRole
from imageport.state.record_fields import RecordFields
from imageport.state.record_folder import Document, RecordFolder, Stored, damaged
from imageport.state.records import Generation, Publication
from imageport.storage.folder import Folder


class Catalogue:
    """The generations of all images; may be used from several threads, processes and sites."""

    def __init__(self, folder: Folder) -> None:
        self._records = RecordFolder(folder, "catalogue", "generation")

    def add(self, generation: Generation) -> None:
        """Write a new generation; the same one again is no error, another one `StateError`."""
        try:
            self._records.create(generation.id, _document(generation))
        except NameTaken as error:
            if self.get(generation.id) != generation:
                raise StateError(
                    f"Cannot add generation '{generation.id}': the catalogue has another one "
                    "under this id."
                ) from error

    def get(self, generation_id: str) -> Generation:
        """Return a generation; `RecordMissing` if the catalogue has none of this id."""
        stored = self._records.read(generation_id)
        if stored is None:
            raise self._missing(generation_id)
        return _generation(stored)

    def list(
        self, *, image: str = "", target: str = "", role: GenerationRole | None = None
    ) -> list[Generation]:
        """Return the generations that fit, oldest first; image names compare without case."""
        found = [_generation(stored) for stored in self._records.read_all()]
        fitting = [
            item
            for item in found
            if (not image or item.image.casefold() == image.casefold())
            and (not target or item.target == target)
            and (role is None or item.role == role)
        ]
        return sorted(fitting, key=lambda item: (item.created, item.id))

    def latest(self, image: str, target: str, role: GenerationRole) -> Generation | None:
        """Return the newest generation of an image at a target in a role."""
        found = self.list(image=image, target=target, role=role)
        return found[-1] if found else None

    def update(self, generation_id: str, **changes: Any) -> Generation:
        """Replace the named fields and return the result; others' changes are kept."""
        return self._change(generation_id, changes)

    def add_publication(self, generation_id: str, publication: Publication) -> Generation:
        """Record where a generation was published; the same store and file name once."""
        return self._change(generation_id, {}, publication)

    def remove(self, generation_id: str) -> None:
        """Remove a generation; one that is not there is no error."""
        self._records.remove(generation_id)

    def _change(
        self, generation_id: str, changes: dict[str, Any], publication: Publication | None = None
    ) -> Generation:
        def change(stored: Stored) -> Document:
            generation = dataclasses.replace(_generation(stored), **changes)
            if publication is not None:
                place = (publication.store, publication.file_name)
                others = [p for p in generation.publications if (p.store, p.file_name) != place]
                generation = dataclasses.replace(generation, publications=(*others, publication))
            return _document(generation)

        stored = self._records.update(generation_id, change)
        if stored is None:
            raise self._missing(generation_id)
        return _generation(stored)

    def _missing(self, generation_id: str) -> RecordMissing:
        return RecordMissing(
            f"Cannot find generation '{generation_id}': the catalogue in "
            f"'{self._records.location}' has no such id."
        )


def _document(generation: Generation) -> Document:
    document = dataclasses.asdict(generation)
    document["publications"] = list(document["publications"])
    return document


def _generation(stored: Stored) -> Generation:
    fields = RecordFields.of(stored)
    role = fields.text("role")
    if role not in set(GenerationRole):
        raise damaged(stored.location, f"field 'role': found {role!r}, needed S, U or P")
    if fields.text("id") != stored.id:
        raise damaged(stored.location, f"found id {fields.text('id')!r}, needed {stored.id!r}")
    generation = Generation(
        id=stored.id,
        image=fields.text("image"),
        target=fields.text("target"),
        role=GenerationRole(role),
        created=fields.text("created"),
        size_bytes=fields.number("size_bytes"),
        source_key=fields.text("source_key"),
        image_digest=fields.text("image_digest"),
        handle=fields.texts("handle"),
        parent_id=fields.text("parent_id"),
        details=fields.mapping("details"),
        publications=tuple(_publication(item) for item in fields.items("publications")),
    )
    fields.end()
    return generation


def _publication(fields: RecordFields) -> Publication:
    publication = Publication(
        store=fields.text("store"),
        file_name=fields.text("file_name"),
        at=fields.text("at"),
        size_bytes=fields.number("size_bytes"),
        last_write_ns=fields.number("last_write_ns"),
        image_digest=fields.text("image_digest"),
        verified=fields.text("verified"),
        stats=fields.mapping("stats"),
    )
    fields.end()
    return publication
