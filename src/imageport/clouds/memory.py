"""A cloud in memory: keeps every block, runs what it is given as engine and as first boot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from imageport.cloud import (
    BootOutcome,
    Cancelled,
    Cloud,
    CloudDisk,
    CloudResource,
    CostLine,
    PermissionGap,
    PlaceProblem,
    never,
)
from imageport.clouds.intents import Intents
from imageport.clouds.memory_blocks import (
    GARBAGE_BLOCK,
    MemoryAccount,
    MemorySnapshot,
    MemorySnapshotDisk,
    MemoryVolume,
)
from imageport.clouds.memory_target import MemorySnapshotTarget
from imageport.clouds.own_resources import require_own
from imageport.clouds.tags import ROLE_PREPARED, TAG_SITE, TAG_TOKEN
from imageport.compose.contract import EngineJob, EngineReport
from imageport.errors import EngineFailed, ResourceGone, TransferCancelled
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import ZERO_BLOCK
from imageport.progress import EventSink, Stage, silent
from imageport.state.ledger import Ledger
from imageport.transfer.block_target import BlockTarget

RunJob = Callable[[MemoryVolume, EngineJob, Path | None], EngineReport]
"""Stands in for the engine machine; raises `EngineFailed` when no report arrives."""
Boot = Callable[[MemoryVolume], BootOutcome]
"""Stands in for the one boot."""


def do_nothing(_volume: MemoryVolume, job: EngineJob, _payload: Path | None) -> EngineReport:
    """Report success without looking at the disk."""
    return EngineReport(action=job.action, ok=True)


def shut_down_at_once(_volume: MemoryVolume) -> BootOutcome:
    """Boot nothing and report a clean end."""
    return BootOutcome(stopped_by_itself=True, seconds=0.0, console_text="")


@dataclass(frozen=True, slots=True)
class MemoryBehaviour:
    """How a memory cloud acts."""

    run_job: RunJob = do_nothing
    boot: Boot = shut_down_at_once
    unwritten: bytes = GARBAGE_BLOCK
    """What a new volume holds where its snapshot has no block: garbage as on an encrypted cloud,
    or ``bytes(BLOCK_BYTES)``. Always zeros where snapshots do not start from their parent."""
    starts_from_parent: bool = True
    """True acts like AWS. False like Azure: an upload starts empty, takes runs of blocks, and what
    the parent holds is copied on demand."""
    expires_seconds: float = 6 * 3600.0
    problems: tuple[PlaceProblem, ...] = ()


class MemoryCloud(Cloud):
    """One run in a `MemoryAccount`; what it makes is in the ledger, as in every cloud."""

    name = "memory"
    scope = "memory/here"

    def __init__(
        self,
        ledger: Ledger,
        run: str,
        *,
        site: str = "site",
        account: MemoryAccount | None = None,
        behaviour: MemoryBehaviour | None = None,
    ) -> None:
        self.account = account if account is not None else MemoryAccount()
        self.behaviour = behaviour if behaviour is not None else MemoryBehaviour()
        self._intents = Intents(ledger, self.scope, site, run, self.behaviour.expires_seconds)

    def check_permissions(self) -> list[PermissionGap]:
        """Return nothing: everything is allowed here."""
        return []

    def check_place(self, image: str, size_bytes: int) -> list[PlaceProblem]:
        """Return what the behaviour says, about an image that has a name and a size."""
        return list(self.behaviour.problems) if image and size_bytes else []

    def upload_target(self, image: str, *, parent: str = "", description: str = "") -> BlockTarget:
        """Return a new snapshot as target."""
        _ = description  # nobody reads it here
        return MemorySnapshotTarget(
            self.account,
            self._intents,
            image,
            parent=parent,
            starts_from_parent=self.behaviour.starts_from_parent,
        )

    def exists(self, reference: str) -> bool:
        """Tell whether the snapshot is there and complete."""
        found = self.account.snapshots.get(reference)
        return found is not None and found.completed

    def make_disk(self, reference: str, disk_guid: str) -> CloudDisk:
        """Make a volume with the snapshot's blocks."""
        intent = self._intents.intend("volume", "work", self._intents.run, reference)
        with self.account.lock:
            volume = self._found_volume(intent.entry.resource_id, intent.token)
            if volume is None:
                snapshot = self.account.completed(reference)
                volume = MemoryVolume(
                    self.account.new_id("vol"),
                    snapshot.size_bytes,
                    dict(snapshot.blocks),
                    self.behaviour.unwritten if self.behaviour.starts_from_parent else ZERO_BLOCK,
                    dict(intent.tags),
                )
                self.account.volumes[volume.id] = volume
        self._intents.record(intent, volume.id)
        return CloudDisk(volume.id, volume.size_bytes, disk_guid)

    def run_engine(
        self,
        disk: CloudDisk,
        job: EngineJob,
        payload: Path | None = None,
        *,
        deadline_seconds: float,
        events: EventSink = silent,
        cancelled: Cancelled = never,
    ) -> EngineReport:
        """Call the behaviour's engine; an exception of it is `EngineFailed`."""
        _ = deadline_seconds  # the callable runs as long as it runs
        stage = Stage(f"engine {job.action}", events, unit="steps")
        self._check_cancelled(cancelled)
        try:
            report = self.behaviour.run_job(self._volume(disk), job, payload)
        except (OSError, ValueError) as error:
            raise EngineFailed(f"Cannot {job.action} '{disk.id}': {error}.", log="") from error
        stage.finish()
        return report

    def boot_once(
        self,
        disk: CloudDisk,
        *,
        deadline_seconds: float,
        events: EventSink = silent,
        cancelled: Cancelled = never,
    ) -> BootOutcome:
        """Call the behaviour's boot."""
        _ = deadline_seconds  # the callable runs as long as it runs
        stage = Stage("first boot", events, unit="steps")
        self._check_cancelled(cancelled)
        outcome = self.behaviour.boot(self._volume(disk))
        stage.finish()
        return outcome

    def snapshot(self, disk: CloudDisk, name: str) -> str:
        """Copy the volume's blocks."""
        intent = self._intents.intend(
            "snapshot", ROLE_PREPARED, self._intents.run, disk.id, name=name
        )
        with self.account.lock:
            reference = self._found_snapshot(intent.entry.resource_id, intent.token)
            if not reference:
                volume = self._volume(disk)
                reference = self.account.new_id("snap")
                self.account.snapshots[reference] = MemorySnapshot(
                    reference,
                    volume.size_bytes,
                    dict(volume.blocks),
                    completed=True,
                    tags=dict(intent.tags),
                )
        self._intents.record(intent, reference)
        return reference

    def open_snapshot(self, reference: str) -> VirtualDisk:
        """Open a snapshot for reading."""
        return MemorySnapshotDisk(self.account, reference)

    def delete_disk(self, disk: CloudDisk) -> None:
        """Delete a volume."""
        self.account.volumes.pop(disk.id, None)
        self._intents.mark(disk.id, "deleted")

    def delete_snapshot(self, reference: str) -> None:
        """Delete a snapshot."""
        self.account.snapshots.pop(reference, None)
        self._intents.mark(reference, "deleted")

    def list_ours(self, site: str) -> list[CloudResource]:
        """Return volumes and snapshots of the site."""
        with self.account.lock:
            volumes = [("volume", item.id, item.tags) for item in self.account.volumes.values()]
            snapshots = [
                ("snapshot", item.id, item.tags) for item in self.account.snapshots.values()
            ]
        return [
            CloudResource(kind, id_, dict(tags))
            for kind, id_, tags in volumes + snapshots
            if tags.get(TAG_SITE) == site
        ]

    def delete_resource(self, resource: CloudResource) -> str:
        """Delete a volume or a snapshot of the own site."""
        require_own(resource, self._intents.site)
        if resource.kind == "volume":
            self.account.volumes.pop(resource.id, None)
        else:
            self.account.snapshots.pop(resource.id, None)
        self._intents.mark(resource.id, "deleted")
        return ""

    def estimate(self, data_bytes: int, size_bytes: int) -> list[CostLine]:
        """Return one line: memory is free."""
        _ = size_bytes
        return [CostLine("memory", float(data_bytes), "bytes", 0.0)]

    def _found_volume(self, volume_id: str, token: str) -> MemoryVolume | None:
        """Return the volume of a killed call: by its id, or by its token if none was recorded."""
        if volume_id:
            return self.account.volumes.get(volume_id)
        for volume in self.account.volumes.values():
            if volume.tags.get(TAG_TOKEN) == token:
                return volume
        return None

    def _found_snapshot(self, reference: str, token: str) -> str:
        """Return the snapshot of a killed call likewise; "" if there is none."""
        if reference:
            return reference if reference in self.account.snapshots else ""
        made = self.account.snapshots.values()
        return next((item.id for item in made if item.tags.get(TAG_TOKEN) == token), "")

    def _volume(self, disk: CloudDisk) -> MemoryVolume:
        found = self.account.volumes.get(disk.id)
        if found is None:
            raise ResourceGone(f"Cannot use '{disk.id}': the memory cloud has no such volume.")
        return found

    @staticmethod
    def _check_cancelled(cancelled: Cancelled) -> None:
        if cancelled():
            raise TransferCancelled("Cannot go on: the run was cancelled.")
