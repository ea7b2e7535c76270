"""`GcpCloud`: the parts of this folder behind the one interface that the workflow knows."""

from __future__ import annotations

from pathlib import Path

from google.auth.credentials import Credentials

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
from imageport.clouds.engine_setup import EngineRun
from imageport.clouds.gcp import boot_once, disks, engine_vm, inventory, prepared_images, prices
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.clients import GcpClients
from imageport.clouds.gcp.images import describe_image
from imageport.clouds.gcp.permissions import check_permissions
from imageport.clouds.gcp.place import check_place
from imageport.clouds.gcp.segment_disk import SegmentDisk
from imageport.clouds.gcp.segment_index import has_index, has_segments
from imageport.clouds.gcp.segment_target import SegmentTarget
from imageport.clouds.gcp.settings import GcpSettings
from imageport.compose.contract import EngineJob, EngineReport
from imageport.errors import ResourceGone
from imageport.formats.virtual_disk import VirtualDisk
from imageport.progress import EventSink, Stage, silent
from imageport.state.ledger import Ledger
from imageport.transfer.block_target import BlockTarget


class GcpCloud(Cloud):
    """One project, zone, bucket and subnet for one run.

    References are ids of images, ``projects/P/global/images/NAME``; an upload's handle is the
    address of its marker in the bucket.
    """

    name = "gcp"

    def __init__(
        self, settings: GcpSettings, credentials: Credentials, ledger: Ledger, run: str
    ) -> None:
        self.settings = settings
        self._clients = GcpClients(settings, credentials)
        self._account = GcpAccount(settings, self._clients, ledger, run)
        self.scope = self._account.scope

    def check_permissions(self) -> list[PermissionGap]:
        """Ask project and bucket what the credentials may do, and compare it with a run's needs."""
        return check_permissions(self._account)

    def check_place(self, image: str, size_bytes: int) -> list[PlaceProblem]:
        """Look at names, zone, subnets, machine types, disk sizes, quotas and the bucket."""
        return check_place(self._account, image, size_bytes)

    def upload_target(self, image: str, *, parent: str = "", description: str = "") -> BlockTarget:
        """Return a place for blocks in the bucket, which become an image."""
        if self.settings.archive == "stream":
            # Not at the top: hardly any target needs the fallback.
            from imageport.clouds.gcp.streamed_archive_target import (  # noqa: PLC0415
                StreamedArchiveTarget,
            )

            return StreamedArchiveTarget(self._account, image, description=description)
        return SegmentTarget(self._account, image, parent=parent, description=description)

    def exists(self, reference: str) -> bool:
        """Tell whether the image is there, complete and readable; an upload's marker is none."""
        try:
            facts = describe_image(self._account, reference)
        except ResourceGone:
            return False  # an id of something else, or of another cloud
        return facts is not None and facts.ready and has_index(self._account, reference)

    def fits_as_parent(self, reference: str) -> bool:
        """Tell whether a child can take blocks from this upload: its index has to be there."""
        if self.settings.archive == "stream" or not self.exists(reference):
            return False
        return has_segments(self._account, reference)

    def make_disk(self, reference: str, disk_guid: str) -> CloudDisk:
        """Make a disk from the image."""
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
        """Boot the disk as the boot disk of a machine that firewall rules isolate."""
        stage = Stage("first boot", events, unit="steps")
        outcome = boot_once.boot_once(self._account, disk, deadline_seconds, stage, cancelled)
        stage.finish(outcome.reason or f"shut down by itself after {outcome.seconds:.0f} s")
        return outcome

    def snapshot(self, disk: CloudDisk, name: str) -> str:
        """Write what the disk holds to the bucket, make an image of it and wait for it."""
        return prepared_images.make_prepared_image(self._account, disk, name)

    def open_snapshot(self, reference: str) -> VirtualDisk:
        """Open the image by its index and the blocks in the bucket, each checked by its digest."""
        return SegmentDisk(self._account, reference)

    def delete_disk(self, disk: CloudDisk) -> None:
        """Delete the disk."""
        disks.delete_disk(self._account, disk.id)

    def delete_snapshot(self, reference: str) -> None:
        """Delete the image, and what in the bucket belonged to it alone."""
        prepared_images.delete_whole_image(self._account, reference)

    def list_ours(self, site: str) -> list[CloudResource]:
        """Return everything with the site's tag, in Compute Engine and in the bucket."""
        return inventory.list_ours(self._account, site)

    def delete_resource(self, resource: CloudResource) -> str:
        """Delete one resource of the settings' own site; tell what became of its segments."""
        return str(inventory.delete_resource(self._account, resource) or "")

    def estimate(self, data_bytes: int, size_bytes: int) -> list[CostLine]:
        """Estimate by the table in `imageport.clouds.gcp.prices`."""
        return prices.estimate(self.settings, data_bytes, size_bytes)

    def close(self) -> None:
        """Close all connections; may be called twice."""
        self._clients.close()
