"""`AwsCloud`: the parts of this folder behind the one interface that the workflow knows."""

from __future__ import annotations

from pathlib import Path

import boto3

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
from imageport.clouds.aws import boot_once, disks, engine_vm, inventory, prices, snapshots
from imageport.clouds.aws.account import Account
from imageport.clouds.aws.clients import AwsClients
from imageport.clouds.aws.ebs_snapshot_disk import EbsSnapshotDisk
from imageport.clouds.aws.ebs_snapshot_target import EbsSnapshotTarget
from imageport.clouds.aws.permissions import check_permissions
from imageport.clouds.aws.place import check_place
from imageport.clouds.aws.settings import AwsSettings
from imageport.clouds.engine_setup import EngineRun
from imageport.compose.contract import EngineJob, EngineReport
from imageport.formats.virtual_disk import VirtualDisk
from imageport.progress import EventSink, Stage, silent
from imageport.state.ledger import Ledger
from imageport.transfer.block_target import BlockTarget


class AwsCloud(Cloud):
    """One account, region and subnet for one run; references are EBS snapshot ids."""

    name = "aws"

    def __init__(
        self, settings: AwsSettings, session: boto3.Session, ledger: Ledger, run: str
    ) -> None:
        self.settings = settings
        self._clients = AwsClients(session, settings)
        self._account = Account(settings, self._clients, ledger, run)
        self.scope = self._account.scope

    def check_permissions(self) -> list[PermissionGap]:
        """Try every action of a run by requests that AWS must refuse after it allowed them."""
        return check_permissions(self._account)

    def check_place(self, image: str, size_bytes: int) -> list[PlaceProblem]:
        """Look at zone, subnet, machine types, sizes and quotas."""
        return check_place(self._account, image, size_bytes)

    def upload_target(self, image: str, *, parent: str = "", description: str = "") -> BlockTarget:
        """Return a new EBS snapshot as target."""
        return EbsSnapshotTarget(self._account, image, parent=parent, description=description)

    def exists(self, reference: str) -> bool:
        """Tell whether the snapshot is there and complete."""
        facts = snapshots.describe_snapshot(self._account, reference)
        return facts is not None and facts.state == "completed"

    def fits_as_parent(self, reference: str) -> bool:
        """Tell whether the snapshot is there, and encrypted if its child must be.

        A child inherits its parent's encryption; asking for another one is refused by AWS.
        """
        facts = snapshots.describe_snapshot(self._account, reference)
        if facts is None or facts.state != "completed":
            return False
        return facts.encrypted or not self.settings.encrypted

    def make_disk(self, reference: str, disk_guid: str) -> CloudDisk:
        """Make a gp3 volume from the snapshot."""
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
        """Run the engine on an on-demand instance with the volume attached."""
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
        """Boot the volume as the swapped root of a stub instance in a deny-all group."""
        stage = Stage("first boot", events, unit="steps")
        outcome = boot_once.boot_once(self._account, disk, deadline_seconds, stage, cancelled)
        stage.finish(outcome.reason or f"shut down by itself after {outcome.seconds:.0f} s")
        return outcome

    def snapshot(self, disk: CloudDisk, name: str) -> str:
        """Make a snapshot of the volume and wait for it."""
        return snapshots.snapshot_volume(self._account, disk.id, name)

    def open_snapshot(self, reference: str) -> VirtualDisk:
        """Open the snapshot through the EBS direct APIs."""
        return EbsSnapshotDisk(self._account, reference)

    def delete_disk(self, disk: CloudDisk) -> None:
        """Delete the volume."""
        disks.delete_volume(self._account, disk.id)

    def delete_snapshot(self, reference: str) -> None:
        """Delete the snapshot."""
        snapshots.delete_snapshot(self._account, reference)

    def list_ours(self, site: str) -> list[CloudResource]:
        """Return everything with the site's tag, machines first."""
        return inventory.list_ours(self._account, site)

    def delete_resource(self, resource: CloudResource) -> str:
        """Delete one resource of the settings' own site."""
        inventory.delete_resource(self._account, resource)
        return ""

    def estimate(self, data_bytes: int, size_bytes: int) -> list[CostLine]:
        """Estimate by the table in `imageport.clouds.aws.prices`."""
        return prices.estimate(data_bytes, size_bytes, keep_parent=self.settings.keep_parent)

    def close(self) -> None:
        """Close all connections; may be called twice."""
        self._clients.close()
