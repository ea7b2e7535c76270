"""`AzureCloud`: the parts of this folder behind the one interface that the workflow knows."""

from __future__ import annotations

from pathlib import Path

from azure.core.credentials import TokenCredential

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
from imageport.clouds.azure import boot_once, disks, engine_vm, inventory, prices, snapshots
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.managed_disk_reader import SnapshotDisk
from imageport.clouds.azure.managed_disk_target import ManagedDiskTarget
from imageport.clouds.azure.permissions import check_permissions
from imageport.clouds.azure.place import check_place
from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.engine_setup import EngineRun
from imageport.compose.contract import EngineJob, EngineReport
from imageport.errors import ResourceGone
from imageport.formats.virtual_disk import VirtualDisk
from imageport.progress import EventSink, Stage, silent
from imageport.state.ledger import Ledger
from imageport.transfer.block_target import BlockTarget


class AzureCloud(Cloud):
    """One subscription, resource group and subnet for one run.

    References are full ARM ids of managed snapshots; an upload's handle is that of its disk.
    """

    name = "azure"

    def __init__(
        self, settings: AzureSettings, credential: TokenCredential, ledger: Ledger, run: str
    ) -> None:
        self.settings = settings
        self._clients = AzureClients(settings, credential)
        self._account = AzureAccount(settings, self._clients, ledger, run)
        self.scope = self._account.scope

    def check_permissions(self) -> list[PermissionGap]:
        """Ask Azure what the credential may do, and compare it with what a run needs."""
        return check_permissions(self._account)

    def check_place(self, image: str, size_bytes: int) -> list[PlaceProblem]:
        """Look at location, subnets, machine sizes, disk sizes, quotas and the job container."""
        return check_place(self._account, image, size_bytes)

    def upload_target(self, image: str, *, parent: str = "", description: str = "") -> BlockTarget:
        """Return a new managed disk as target, which becomes a snapshot."""
        return ManagedDiskTarget(self._account, image, parent=parent, description=description)

    def exists(self, reference: str) -> bool:
        """Tell whether the snapshot is there and complete; an upload's disk is none."""
        try:
            facts = snapshots.describe_snapshot(self._account, reference)
        except ResourceGone:
            return False  # an id of something else, or of another cloud
        return facts is not None and facts.readable

    def make_disk(self, reference: str, disk_guid: str) -> CloudDisk:
        """Make a managed disk from the snapshot."""
        return disks.make_disk(self._account, reference, disk_guid)

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
        """Run the engine on an on-demand machine with the disk attached."""
        stage = Stage(f"engine {job.action}", events, unit="steps")
        run = EngineRun(disk, job, payload, deadline_seconds)
        report = engine_vm.run_engine(self._account, run, stage, cancelled)
        stage.finish("ok" if report.ok else report.error)
        return report

    def boot_once(
        self,
        disk: CloudDisk,
        *,
        deadline_seconds: float,
        events: EventSink = silent,
        cancelled: Cancelled = never,
    ) -> BootOutcome:
        """Boot the disk as the system disk of a machine in a deny-all group."""
        stage = Stage("first boot", events, unit="steps")
        outcome = boot_once.boot_once(self._account, disk, deadline_seconds, stage, cancelled)
        stage.finish(outcome.reason or f"shut down by itself after {outcome.seconds:.0f} s")
        return outcome

    def snapshot(self, disk: CloudDisk, name: str) -> str:
        """Make an incremental snapshot of the disk and wait for it."""
        return snapshots.snapshot_disk(self._account, disk.id, name)

    def open_snapshot(self, reference: str) -> VirtualDisk:
        """Open the snapshot through a signed URL, revoked when it is closed."""
        return SnapshotDisk(self._account, reference)

    def delete_disk(self, disk: CloudDisk) -> None:
        """Delete the disk."""
        disks.delete_disk(self._account, disk.id)

    def delete_snapshot(self, reference: str) -> None:
        """Delete the snapshot."""
        snapshots.delete_snapshot(self._account, reference)

    def list_ours(self, site: str) -> list[CloudResource]:
        """Return everything with the site's tag, and the access given out to any of it."""
        return inventory.list_ours(self._account, site)

    def delete_resource(self, resource: CloudResource) -> str:
        """Delete one resource of the settings' own site."""
        inventory.delete_resource(self._account, resource)
        return ""

    def estimate(self, data_bytes: int, size_bytes: int) -> list[CostLine]:
        """Estimate by the table in `imageport.clouds.azure.prices`."""
        settings = self.settings
        return prices.estimate(
            data_bytes, size_bytes, disk_sku=settings.disk_sku, keep_parent=settings.keep_parent
        )

    def close(self) -> None:
        """Close all connections; may be called twice."""
        self._clients.close()
