"""One whole disk written into a vDisk store: by publish at the target, by export at the source."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from dataclasses import asdict
from typing import Any

from imageport.citrix.names import is_version_of
from imageport.citrix.vdisk_store import IfExists, TargetName, VdiskStore, token_of
from imageport.errors import FileLocked, ImageportError, VerificationFailed
from imageport.state.records import Generation, Publication
from imageport.transfer.pipeline import TransferResult
from imageport.workflow.checkpoints import Checkpoint
from imageport.workflow.generations import now_text
from imageport.workflow.place import SitePlace, may_go_on


class StoreWriting(ABC):
    """One file into one store; once the file is whole, a second try gives it the name it has.

    ``identity`` names what is written, the same after a crash; it decides which half file goes on.
    ``key`` names the work: what is found under it of another identity is forgotten.
    """

    def __init__(  # noqa: PLR0913 - each is one word of what is written where
        self,
        place: SitePlace,
        store: VdiskStore,
        name: str,
        identity: str,
        *,
        key: str,
        stage: str,
        if_exists: IfExists = IfExists.NEW_VERSION,
    ) -> None:
        self.place = place
        self.store = store
        self.name = name
        self.identity = identity
        self.key = key
        self._if_exists = if_exists
        self._checkpoint = Checkpoint(place.state.folder, stage, key)

    @abstractmethod
    def move(self, part_name: str) -> TransferResult:
        """Fill the file ``part_name`` of the store; verified when this returns."""

    @abstractmethod
    def keep_digests(self, publication: Publication, result: TransferResult) -> None:
        """Write down what the file holds, before it gets its name; may be called again."""

    @abstractmethod
    def record(self, publication: Publication) -> Generation:
        """Tell the catalogue of the file, which has its name; may be called again."""

    def write(self) -> Generation:
        """Write the file, or end the work of a run that was killed; return its generation."""
        publication = self._taken_up(self._checkpoint.load())
        if publication is None:
            publication = self._written()
        generation = self.record(publication)
        self.tidy_up()
        return generation

    def tidy_up(self) -> None:
        """Forget how far the work had come; for a run that was killed when it was done, too."""
        self._checkpoint.clear()
        self.place.state.journals.delete(self.key)

    def finish(self, target: TargetName, part: str, result: TransferResult) -> Publication:
        """Give a verified file its name."""
        stat = self.store.folder.stat(part)
        if stat is None:
            raise VerificationFailed(f"Cannot finish '{part}': the file vanished from the store.")
        # PVS compares times in whole seconds between file and manifest.
        last_write_ns = int(time.time()) * 1_000_000_000
        publication = Publication(
            store=self.store.location,
            file_name=target.file_name,
            at=now_text(),
            size_bytes=stat.size_bytes,
            last_write_ns=last_write_ns,
            image_digest=result.manifest.image_digest(),
            stats=result.stats.as_dict(),
            verified=result.verified,
        )
        self.keep_digests(publication, result)
        self._checkpoint.save(
            {
                "identity": self.identity,
                "publication": asdict(publication),
                "target": asdict(target),
            }
        )
        self.store.finish(target, part, last_write_ns)
        return publication

    def _taken_up(self, saved: dict[str, Any]) -> Publication | None:
        """Return the publication of a run that was killed after the rename; ends its work."""
        if "publication" not in saved or saved.get("identity", self.identity) != self.identity:
            return None
        publication = Publication(**saved["publication"])
        if not is_untouched(self.store, publication):
            return None
        self.store.complete(TargetName(**saved["target"]), publication.last_write_ns)
        return publication

    def _written(self) -> Publication:
        target = self.store.choose_target(self.name, if_exists=self._if_exists)
        part = self.store.begin_file(target, self.identity)
        self._discard_older_halves(part)
        try:
            return self.finish(target, part, self.move(part))
        except BaseException as error:
            if not may_go_on(error):
                with contextlib.suppress(ImageportError):
                    self._give_up(target, part)
            raise

    def _give_up(self, target: TargetName, part: str) -> None:
        """Leave nothing behind, unless the file has its name: then the next run lists it."""
        whole = self.store.folder.stat(part) is None and "publication" in self._checkpoint.load()
        if whole and self.store.folder.stat(target.file_name) is not None:
            return
        self.store.discard(part)
        self.tidy_up()

    def _discard_older_halves(self, part: str) -> None:
        """Delete what a killed run began of this very thing under a number since taken."""
        token = token_of(self.identity)
        for left in self.store.leftovers():
            own = left.token == token and is_version_of(left.file_name, self.name)
            if own and left.part_name != part:
                with contextlib.suppress(FileLocked):  # the server still holds a dead handle
                    self.store.discard(left.part_name)


def is_untouched(store: VdiskStore, publication: Publication) -> bool:
    """Tell whether a store still has a file just as it was written."""
    stat = store.folder.stat(publication.file_name)
    return (
        publication.store == store.location
        and stat is not None
        and stat.size_bytes == publication.size_bytes
        and stat.last_write_ns == publication.last_write_ns
    )
