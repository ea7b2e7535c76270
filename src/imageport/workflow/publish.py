"""Publish: generation P out of the cloud into a vDisk store, as PVS wants it."""

from __future__ import annotations

import contextlib
from dataclasses import replace

from imageport.citrix.names import file_of
from imageport.citrix.vdisk_store import IfExists, VdiskStore
from imageport.errors import LeaseHeld, ResourceGone
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.model import GenerationRole
from imageport.progress import Stage
from imageport.state.records import Generation, Publication
from imageport.transfer.pipeline import TransferRequest, TransferResult, transfer
from imageport.transfer.verify import VerifyLevel
from imageport.workflow.generations import snapshot_of, usable
from imageport.workflow.place import Workplace, may_go_on
from imageport.workflow.retention import retire_superseded
from imageport.workflow.sized_disk import SizedDisk
from imageport.workflow.store_file import StoreWriting, is_untouched

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
            found = publishing.write().publications[-1]
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
        if is_untouched(store, publication):
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


class _Publishing(StoreWriting):
    """A prepared generation, read from its snapshot."""

    place: Workplace

    def __init__(
        self,
        place: Workplace,
        prepared: Generation,
        store: VdiskStore,
        name: str,
        if_exists: IfExists,
    ) -> None:
        key = f"{prepared.id}>{store.location}/{name}"
        super().__init__(place, store, name, prepared.id, key=key, stage=STAGE, if_exists=if_exists)
        self._prepared = prepared

    def move(self, part_name: str) -> TransferResult:
        snapshot = self.place.cloud.open_snapshot(snapshot_of(self._prepared))
        file_target = VhdxFileTarget(self.store.folder, part_name)
        try:
            with SizedDisk(snapshot, self._prepared.size_bytes) as source:
                request = TransferRequest(
                    journal=self.place.state.journals.open(self.key),
                    token=part_name,
                    verify=VerifyLevel.FULL,
                    events=self.place.events,
                    stage=STAGE,
                    cancelled=self.place.cancelled,
                    may_go_on=may_go_on,
                )
                return transfer(source, file_target, request)
        finally:
            file_target.close()

    def keep_digests(self, publication: Publication, result: TransferResult) -> None:
        del publication
        self.place.state.manifests.put(self._prepared.id, result.manifest)

    def record(self, publication: Publication) -> Generation:
        return self.place.state.catalogue.add_publication(self._prepared.id, publication)
