"""Publish: generation P out of the cloud into a vDisk store, as PVS wants it."""

from __future__ import annotations

import contextlib
import time
from dataclasses import asdict, replace
from typing import Any

from imageport.citrix.names import file_of, is_version_of
from imageport.citrix.vdisk_store import IfExists, TargetName, VdiskStore, token_of
from imageport.errors import (
    FileLocked,
    ImageportError,
    LeaseHeld,
    ResourceGone,
    VerificationFailed,
)
from imageport.formats.file_target import VhdxFileTarget
from imageport.model import GenerationRole
from imageport.progress import Stage
from imageport.state.records import Generation, Publication
from imageport.transfer.pipeline import TransferRequest, TransferResult, transfer
from imageport.transfer.verify import VerifyLevel
from imageport.workflow.checkpoints import Checkpoint
from imageport.workflow.generations import now_text, snapshot_of, usable
from imageport.workflow.place import Workplace, may_go_on
from imageport.workflow.retention import retire_superseded
from imageport.workflow.sized_disk import SizedDisk

STAGE = "publish"


def publish(
    place: Workplace,
    prepared_id: str,
    store: VdiskStore,
    name: str,
    *,
    if_exists: IfExists = IfExists.NEW_VERSION,
) -> Publication:
    """Write a prepared generation into the store and return where it lies.

    Every block is read back from the store before the file gets its name. A generation that this
    store already has, unchanged, is left alone. Resumes after a crash.

    Raises:
        NameTaken: the name exists and ``if_exists`` says refuse.
        VerificationFailed: what the store returned is not what was written; nothing was published.
        ShareFull, ShareRefused …: the store.
    """
    prepared = place.state.catalogue.get(prepared_id)
    with place.holding(f"{prepared.image}>{store.location}") as lease:
        held = replace(place, cancelled=place.asked_under(lease))
        publishing = _Publishing(held, prepared, store, name, if_exists)
        found = published_as(place, prepared_id, store, name)
        if found is not None:
            publishing.tidy_up()
            stage = Stage(STAGE, place.events)
            stage.finish(f"nothing had to move: {found.file_name} is already there")
        else:
            if usable(place, prepared) is None:
                raise ResourceGone(f"Cannot publish '{prepared_id}': its snapshot is gone.")
            found = publishing.run()
    # Also when nothing moved: a run that was killed after its file was published ends here. A run
    # that works on the image now may need what is superseded, and retires it when it publishes.
    with contextlib.suppress(LeaseHeld), place.holding(prepared.image):
        retire_superseded(place, prepared.image)
    return found


def published_as(
    place: Workplace, prepared_id: str, store: VdiskStore, name: str = ""
) -> Publication | None:
    """Return where the generation lies in this store, if the file is still what was written.

    A version under a later one of ours does not count: devices are given the later one.
    """
    prepared = place.state.catalogue.get(prepared_id)
    newest = _newest_version(place, prepared.image, store, name) if name else 0
    for publication in reversed(prepared.publications):
        if publication.store != store.location:
            continue
        if name and not (0 <= _version(publication.file_name, name) == newest):
            continue
        stat = store.folder.stat(publication.file_name)
        if (
            stat is not None
            and stat.size_bytes == publication.size_bytes
            and stat.last_write_ns == publication.last_write_ns
        ):
            return publication
    return None


def _newest_version(place: Workplace, image: str, store: VdiskStore, name: str) -> int:
    """Return the highest version that the catalogue published and the store still has."""
    return max(
        (
            _version(publication.file_name, name)
            for generation in place.state.catalogue.list(
                image=image, target=place.target, role=GenerationRole.PREPARED
            )
            for publication in generation.publications
            if publication.store == store.location
            and store.folder.stat(publication.file_name) is not None
        ),
        default=0,
    )


def _version(file_name: str, name: str) -> int:
    """Return the version that a disk file is of a vDisk; -1 when it is none."""
    found = file_of(name.removesuffix(".vhdx"), file_name)
    return found.version if found is not None and found.is_disk else -1


class _Publishing:
    """One file into one store; once the file is whole, a second try gives it the name it has."""

    def __init__(
        self,
        place: Workplace,
        prepared: Generation,
        store: VdiskStore,
        name: str,
        if_exists: IfExists,
    ) -> None:
        self._place = place
        self._prepared = prepared
        self._store = store
        self._name = name
        self._if_exists = if_exists
        self._key = f"{prepared.id}>{store.location}/{name}"
        self._checkpoint = Checkpoint(place.state.folder, STAGE, self._key)

    def run(self) -> Publication:
        saved = self._checkpoint.load()
        publication = self._taken_up(saved)
        if publication is None:
            publication = self._write()
        self._place.state.catalogue.add_publication(self._prepared.id, publication)
        self.tidy_up()
        return publication

    def tidy_up(self) -> None:
        """Forget how far the work had come; for a run that was killed when it was done, too."""
        self._checkpoint.clear()
        self._place.state.journals.delete(self._key)

    def _taken_up(self, saved: dict[str, Any]) -> Publication | None:
        """Return the publication of a run that was killed after the rename; ends its work."""
        if "publication" not in saved:
            return None
        publication = Publication(**saved["publication"])
        stat = self._store.folder.stat(publication.file_name)
        if stat is None or stat.size_bytes != publication.size_bytes:
            return None
        if stat.last_write_ns != publication.last_write_ns:
            return None
        self._store.complete(TargetName(**saved["target"]), publication.last_write_ns)
        return publication

    def _write(self) -> Publication:
        target = self._store.choose_target(self._name, if_exists=self._if_exists)
        part = self._store.begin_file(target, self._prepared.id)
        self._discard_older_halves(part)
        try:
            result = self._moved(part)
            return self._finished(target, part, result)
        except BaseException as error:
            if not may_go_on(error):
                with contextlib.suppress(ImageportError):
                    self._give_up(target, part)
            raise

    def _give_up(self, target: TargetName, part: str) -> None:
        """Leave nothing behind, unless the file has its name: then the next run lists it."""
        whole = self._store.folder.stat(part) is None and "publication" in self._checkpoint.load()
        if whole and self._store.folder.stat(target.file_name) is not None:
            return
        self._store.discard(part)
        self.tidy_up()

    def _discard_older_halves(self, part: str) -> None:
        """Delete what a killed run began of this generation under a number since taken."""
        token = token_of(self._prepared.id)
        for left in self._store.leftovers():
            own = left.token == token and is_version_of(left.file_name, self._name)
            if own and left.part_name != part:
                with contextlib.suppress(FileLocked):  # the server still holds a dead handle
                    self._store.discard(left.part_name)

    def _moved(self, part: str) -> TransferResult:
        snapshot = self._place.cloud.open_snapshot(snapshot_of(self._prepared))
        file_target = VhdxFileTarget(self._store.folder, part)
        try:
            with SizedDisk(snapshot, self._prepared.size_bytes) as source:
                request = TransferRequest(
                    journal=self._place.state.journals.open(self._key),
                    token=part,
                    verify=VerifyLevel.FULL,
                    events=self._place.events,
                    stage=STAGE,
                    cancelled=self._place.cancelled,
                    may_go_on=may_go_on,
                )
                return transfer(source, file_target, request)
        finally:
            file_target.close()

    def _finished(self, target: TargetName, part: str, result: TransferResult) -> Publication:
        stat = self._store.folder.stat(part)
        if stat is None:
            raise VerificationFailed(f"Cannot publish '{part}': the file vanished from the store.")
        # PVS compares times in whole seconds between file and manifest.
        last_write_ns = int(time.time()) * 1_000_000_000
        publication = Publication(
            store=self._store.location,
            file_name=target.file_name,
            at=now_text(),
            size_bytes=stat.size_bytes,
            last_write_ns=last_write_ns,
            image_digest=result.manifest.image_digest(),
            stats=result.stats.as_dict(),
            verified=result.verified,
        )
        self._place.state.manifests.put(self._prepared.id, result.manifest)
        self._checkpoint.save({"publication": asdict(publication), "target": asdict(target)})
        self._store.finish(target, part, last_write_ns)
        return publication
