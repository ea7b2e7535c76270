"""Export: a master image out of its hypervisor, as a vDisk in the source site's export folder.

What was exported is generation S: its digests spare the upload every second hash, its change id
lets the next export ask only for what changed, and an unchanged image is not written again.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace

from imageport.citrix.names import file_of, is_version_of
from imageport.citrix.vdisk_store import TargetName
from imageport.errors import FileLocked, VerificationFailed
from imageport.formats.opening import open_disk
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.hypervisor import FrozenDisk
from imageport.model import GenerationRole
from imageport.progress import Stage
from imageport.state.records import Generation, Publication
from imageport.transfer.pipeline import TransferRequest, TransferResult
from imageport.transfer.verify import VerifyLevel
from imageport.workflow.export_bytes import STAGE, ExportBytes
from imageport.workflow.export_turn import in_turn
from imageport.workflow.facts import image_name, source_key_of
from imageport.workflow.generations import generation_id, now_text
from imageport.workflow.master import (
    ExportPlace,
    Master,
    WantedMaster,
    described,
    export_target,
    exported_as,
    exports_of,
    look_up,
    newest_export,
    refuse_foreign,
)
from imageport.workflow.master_snapshot import held_snapshot
from imageport.workflow.place import may_go_on
from imageport.workflow.store_file import StoreWriting, is_untouched


def export(place: ExportPlace, wanted: WantedMaster) -> Generation:
    """Return generation S of a machine's disk, writing it where the folder does not have it.

    Every block is read back before the file gets its name. By ranges, a killed run goes on where
    it was; a stream is read again, and what lies there already is not written again.

    Raises:
        VmMissing, HypervisorRefused …: the hypervisor; our snapshot is gone then.
        ExportInterrupted, HypervisorUnreachable: may be tried again; the half file stays for that.
        VerificationFailed: what came is not what was sent; nothing of it stays.
        NameTaken: the folder has a vDisk of that name that was not exported.
        TransferCancelled: also while another run exports this image, or from this machine.
    """
    master = look_up(place.hypervisor, wanted)
    with in_turn(place, master) as held:
        # As it is now that nobody else works on it.
        master = look_up(held.hypervisor, replace(wanted, image=master.image))
        refuse_foreign(held, master.image)
        _tidy_up(held, master)
        for left in exports_of(held, master.image):
            _completed(held, master.image, left)
        with held_snapshot(held, master) as snapshot:
            frozen = held.hypervisor.freeze(master.vm, snapshot, master.disk)
            generation = _exported(held, master, frozen, wanted)
        retire_exports(held, master.image, generation)
    return generation


def retire_exports(place: ExportPlace, image: str, newest: Generation) -> list[str]:
    """Delete older exports of an image, file first listed no more; one in use goes next time.

    Only what lies there as it was written: of a killed export, or one that found its name taken,
    the catalogue may name a file that is another's, or the newest's.
    """
    retired = []
    kept = {publication.file_name.casefold() for publication in newest.publications}
    for old in place.state.catalogue.list(
        image=image_name(image), target=export_target(place.site), role=GenerationRole.SOURCE
    ):
        if old.id == newest.id:
            continue
        with contextlib.suppress(FileLocked):
            for publication in old.publications:
                ours = is_untouched(place.store, publication)
                if ours and publication.file_name.casefold() not in kept:
                    place.store.remove_version(image, publication.file_name)
            place.state.manifests.delete(old.id)
            place.state.catalogue.remove(old.id)
            retired.append(old.id)
    return retired


def work_key(place: ExportPlace, image: str) -> str:
    """Return what journal and checkpoint of an image's exports are kept under."""
    return f"export>{place.store.location}/{image.casefold()}"


def _tidy_up(place: ExportPlace, master: Master) -> None:
    """End what killed exports left: on the machine, and half files of other content."""
    stage = Stage(STAGE, place.events, total=master.disk.size_bytes)
    for sentence in place.hypervisor.tidy_up(master.vm):
        stage.advance(0, sentence)


def _completed(place: ExportPlace, image: str, generation: Generation) -> Generation:
    """Return an export whose file has its name with the key of its content; listed, too.

    May run again: a run may be killed when the file had just got its name.
    """
    publication = generation.publications[-1]
    if generation.source_key:
        return generation
    file = file_of(image, publication.file_name)
    target = TargetName(image, publication.file_name, file.version if file else 0)
    place.store.complete(target, publication.last_write_ns)
    key = _source_key(place, publication.file_name)
    return place.state.catalogue.update(generation.id, source_key=key)


def _source_key(place: ExportPlace, file_name: str) -> str:
    """Return the key of a file's own content: under its name a store may give a later version."""
    folder = place.store.folder
    with open_disk(folder.open_read(file_name, deny_write=True), folder) as disk:
        return source_key_of(disk.content_key())


def _exported(
    place: ExportPlace, master: Master, frozen: FrozenDisk, wanted: WantedMaster
) -> Generation:
    found = exported_as(place, master.image, frozen.key)
    if found is not None:
        Stage(STAGE, place.events).finish(
            f"nothing had to move: {found.handle['file_name']} holds this very snapshot"
        )
        return found
    previous = newest_export(place, master.image)
    with ExportBytes(place, frozen, wanted.way, previous) as source:
        if source.is_unchanged and source.previous is not None:
            Stage(STAGE, place.events).finish("nothing had to move: nothing changed since")
            return _known_as(place, source.previous, frozen)
        return _Exporting(place, master.image, frozen, source).write()


def _known_as(place: ExportPlace, generation: Generation, frozen: FrozenDisk) -> Generation:
    """Note that an export holds what a later snapshot froze, too."""
    keys = [*generation.details.get("keys", ()), frozen.key]
    details = {**generation.details, "keys": keys, "frozen": described(frozen)}
    return place.state.catalogue.update(generation.id, details=details)


class _Exporting(StoreWriting):
    """One frozen disk into the export folder."""

    place: ExportPlace

    def __init__(
        self, place: ExportPlace, image: str, frozen: FrozenDisk, source: ExportBytes
    ) -> None:
        key = work_key(place, image)
        super().__init__(place, place.store, image, frozen.key, key=key, stage=STAGE)
        self._frozen = frozen
        self._source = source
        self._same: Generation | None = None

    def move(self, part_name: str) -> TransferResult:
        self._discard_others(part_name)
        try:
            return self._moved(part_name)
        except VerificationFailed as error:
            if not self._source.built_on_previous:
                raise
            # The earlier file is not what it was: nothing that is built on it would ever be right.
            self._source.forget_previous(error.message)
        return self._moved(part_name)

    def _moved(self, part_name: str) -> TransferResult:
        # Neither vSphere nor XenServer shows a guest other sectors than the target's own 512.
        target = VhdxFileTarget(self.store.folder, part_name)
        request = TransferRequest(
            journal=self.place.state.journals.open(self.key),
            token=part_name,
            verify=VerifyLevel.FULL,
            events=self.place.events,
            stage=STAGE,
            cancelled=self.place.cancelled,
            may_go_on=may_go_on,
        )
        try:
            return self._source.move(target, request)
        finally:
            target.close()

    def finish(self, target: TargetName, part: str, result: TransferResult) -> Publication:
        """Keep the earlier file where the new one holds the same."""
        previous = self._source.previous
        if previous is None or previous.image_digest != result.manifest.image_digest():
            return super().finish(target, part, result)
        self.store.discard(part)
        self._same = previous
        return previous.publications[-1]

    def keep_digests(self, publication: Publication, result: TransferResult) -> None:
        """Tell the catalogue beforehand, so that the file is known as ours once it has its name.

        Until `record` gives it a source key, no upload takes it for the content of a file.
        """
        image, target = image_name(self.name), export_target(self.place.site)
        id_ = self._id_of(publication)
        self.place.state.manifests.put(id_, result.manifest)
        self.place.state.catalogue.remove(id_)  # of a file of this name that is gone
        self.place.state.catalogue.add(
            Generation(
                id=id_,
                image=image,
                target=target,
                role=GenerationRole.SOURCE,
                created=now_text(),
                size_bytes=self._frozen.size_bytes,
                source_key="",
                image_digest=publication.image_digest,
                handle={"store": publication.store, "file_name": publication.file_name},
                details={
                    "keys": [self._frozen.key],
                    "frozen": described(self._frozen),
                    "way": self._source.words,
                    "run": self.place.run,
                    "stats": publication.stats,
                    "read_back": publication.verified,
                },
                publications=(publication,),
            )
        )

    def record(self, publication: Publication) -> Generation:
        if self._same is not None:
            return _known_as(self.place, self._same, self._frozen)
        written = self.place.state.catalogue.get(self._id_of(publication))
        return _completed(self.place, self.name, written)

    def _id_of(self, publication: Publication) -> str:
        """Return the id of one file's entry: the same content may be exported again, later."""
        return generation_id(
            GenerationRole.SOURCE,
            image_name(self.name),
            export_target(self.place.site),
            self._frozen.key,
            publication.file_name,
        )

    def _discard_others(self, part_name: str) -> None:
        """Delete half files of this image's other contents: its lease is held, nobody goes on."""
        for left in self.store.leftovers():
            if is_version_of(left.file_name, self.name) and left.part_name != part_name:
                with contextlib.suppress(FileLocked):  # the server still holds a dead handle
                    self.store.discard(left.part_name)
