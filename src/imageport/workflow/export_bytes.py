"""How the bytes of a frozen disk come into a file: all of them, or only what changed since."""

from __future__ import annotations

import contextlib
import hashlib
import random
from dataclasses import replace
from typing import Self

from imageport.errors import HypervisorRefused
from imageport.formats.disk_stream import DiskStream
from imageport.formats.opening import open_disk
from imageport.formats.patched_disk import PatchedDisk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.hypervisor import FrozenDisk, VmSnapshot
from imageport.model import BLOCK_BYTES
from imageport.progress import Stage
from imageport.state.records import Generation
from imageport.transfer.block_target import BlockTarget
from imageport.transfer.manifest import Manifest
from imageport.transfer.pipeline import TransferRequest, TransferResult, transfer
from imageport.transfer.receiving import receive
from imageport.workflow.known_digests import outside_of
from imageport.workflow.master import ExportPlace, ExportWay

STAGE = "export"
SAMPLE_BLOCKS = 256
"""Blocks that a platform calls unchanged and that are compared all the same: a fault that touches
one in fifty of them stays unseen once in a hundred and seventy."""

_WHOLE = "as a stream"

Areas = list[tuple[int, int]]


class ExportBytes:
    """The bytes of one frozen disk, by the best way that there is; use as a context manager.

    ``previous`` is the newest earlier export of the image, whose file lies in the folder still.
    """

    def __init__(
        self, place: ExportPlace, frozen: FrozenDisk, way: ExportWay, previous: Generation | None
    ) -> None:
        self.previous = previous
        self.words = _WHOLE
        """How the bytes come, for the catalogue."""
        self.built_on_previous = False
        """Whether `move` took what had not changed from the earlier export's file."""
        self._place = place
        self._frozen = frozen
        self._way = way
        self._areas: Areas | None = None
        self._top: VirtualDisk | None = None
        """The frozen disk by ranges, where the areas were asked for."""
        self._open = contextlib.ExitStack()
        self._stage = Stage(STAGE, place.events, total=frozen.size_bytes)

    def __enter__(self) -> Self:
        if self._way is ExportWay.AUTO and self._changes_can_be_asked():
            self._areas = self._ask_for_changes()
        return self

    def __exit__(self, *_error: object) -> None:
        self._open.close()

    @property
    def is_unchanged(self) -> bool:
        """Tell whether the earlier export holds this very content."""
        return (
            self.previous is not None
            and self._areas == []
            and self.previous.size_bytes == self._frozen.size_bytes
        )

    def forget_previous(self, cause: str) -> None:
        """Read everything from now on."""
        self._stage.advance(0, f"the earlier export cannot be built on, all is read: {cause}")
        self.words = _WHOLE
        self.previous = None
        self._areas = None
        self.built_on_previous = False

    def move(self, target: BlockTarget, request: TransferRequest) -> TransferResult:
        """Bring the disk to the target; errors are those of `transfer` and `receive`."""
        traits = self._place.hypervisor.traits
        if self._areas is not None and self._top is not None:
            return self._move_changes(target, request, self._top, self._areas)
        if self._way is ExportWay.RANGES or not traits.streams:
            self.words = "by ranges"
            with self._place.hypervisor.open_ranges(self._frozen) as disk:
                return transfer(disk, target, request)
        since = self._earlier() if traits.differences and self._way is ExportWay.AUTO else None
        if since is not None and not self._is_younger(since.snapshot):
            stream = self._difference(since)
            if stream is not None:
                self.words = f"as a stream of what changed since '{since.snapshot.name}'"
                self.built_on_previous = True
                known = replace(request, known=self._digests_of_previous())
                with stream, self._previous_disk() as base:
                    return receive(stream, target, known, content_key=self._frozen.key, base=base)
        with self._place.hypervisor.open_stream(self._frozen) as stream:
            return receive(stream, target, request, content_key=self._frozen.key)

    def _changes_can_be_asked(self) -> bool:
        traits = self._place.hypervisor.traits
        earlier = self._earlier()
        return bool(
            traits.changed_areas and traits.ranges and earlier is not None and earlier.change_id
        )

    def _ask_for_changes(self) -> Areas | None:
        """Return what changed since the earlier export; None when that cannot be relied on."""
        earlier = self._earlier()
        if earlier is None:
            return None
        areas = self._place.hypervisor.changed_areas(self._frozen, earlier.change_id)
        if areas is None:
            self._stage.advance(0, "the hypervisor cannot tell what changed: all is read")
            return None
        manifest = self._digests_of_previous()
        if manifest is None:
            return None
        try:
            self._top = self._open.enter_context(self._place.hypervisor.open_ranges(self._frozen))
        except HypervisorRefused as error:
            self._stage.advance(0, f"{error.message} All is read as a stream.")
            return None
        if not _sample_agrees(self._top, outside_of(manifest, areas, self._top.size_bytes)):
            self._stage.advance(0, "what the hypervisor calls unchanged differs: all is read")
            return None
        return list(areas)

    def _move_changes(
        self, target: BlockTarget, request: TransferRequest, top: VirtualDisk, areas: Areas
    ) -> TransferResult:
        self.built_on_previous = True
        changed = sum(length for _, length in areas)
        self.words = f"{changed} bytes that changed, by ranges; the rest from the earlier export"
        manifest = self._digests_of_previous()
        known = outside_of(manifest, areas, self._frozen.size_bytes) if manifest else None
        base = self._open.enter_context(self._previous_disk())
        with PatchedDisk(base, top, areas) as disk:
            return transfer(disk, target, replace(request, known=known))

    def _difference(self, since: FrozenDisk) -> DiskStream | None:
        try:
            return self._place.hypervisor.open_stream(self._frozen, since=since)
        except HypervisorRefused as error:
            self._stage.advance(0, f"{error.message} All is read.")
            return None

    def _earlier(self) -> FrozenDisk | None:
        """Return what the earlier export froze, if it was this very disk."""
        if self.previous is None:
            return None
        facts = self.previous.details.get("frozen", {})
        here = self._frozen
        same = (here.hypervisor_id, here.vm.id, here.disk.key)
        if (facts.get("hypervisor_id"), facts.get("vm_id"), facts.get("disk_key")) != same:
            return None
        if int(facts["size_bytes"]) > here.size_bytes:
            return None  # no disk shrinks: another one took its place
        return replace(
            here,
            snapshot=VmSnapshot(str(facts["snapshot_id"]), str(facts["snapshot"])),
            size_bytes=int(facts["size_bytes"]),
            change_id=str(facts["change_id"]),
        )

    def _is_younger(self, earlier: VmSnapshot) -> bool:
        """Tell whether the earlier export's snapshot was taken after this one.

        Platforms promise what changed since, not what was otherwise later.
        """
        taken = [one.created for one in self._frozen.vm.snapshots if one.id == earlier.id]
        return any(created > self._frozen.snapshot.created for created in taken)

    def _digests_of_previous(self) -> Manifest | None:
        return self._place.state.manifests.get(self.previous.id) if self.previous else None

    def _previous_disk(self) -> VirtualDisk:
        store = self._place.store
        name = self.previous.handle["file_name"] if self.previous else ""
        return open_disk(store.folder.open_read(name, deny_write=True), store.folder)


def _sample_agrees(disk: VirtualDisk, known: Manifest) -> bool:
    """Compare some blocks that are said to be unchanged with what they were."""
    blocks = list(known.written())
    for index in sorted(random.sample(blocks, min(SAMPLE_BLOCKS, len(blocks)))):
        start = index * BLOCK_BYTES
        data = disk.read_at(start, min(BLOCK_BYTES, disk.size_bytes - start))
        if hashlib.sha256(data.ljust(BLOCK_BYTES, b"\0")).digest() != known.digest(index):
            return False
    return True
