# References: XenServer Management API; xapi-project/xen-api.
"""A XenServer or XCP-ng pool as a `Hypervisor`."""

from __future__ import annotations

from collections.abc import Sequence

from imageport.cloud import PermissionGap
from imageport.errors import HypervisorRefused
from imageport.formats.disk_stream import DiskStream
from imageport.formats.virtual_disk import VirtualDisk
from imageport.hypervisor import (
    ExportTraits,
    FrozenDisk,
    Hypervisor,
    Vm,
    VmDisk,
    VmSnapshot,
)
from imageport.hypervisors.xenserver.connection import PoolConnection
from imageport.hypervisors.xenserver.export import open_export
from imageport.hypervisors.xenserver.inventory import Inventory
from imageport.hypervisors.xenserver.leftovers import Leftovers
from imageport.hypervisors.xenserver.permissions import permission_gaps
from imageport.hypervisors.xenserver.settings import XenServerSettings
from imageport.hypervisors.xenserver.snapshots import Snapshots


class XenServerHypervisor(Hypervisor):
    """One pool, asked through its coordinator; disks come from the hosts that have the storage.

    A machine's location is its XenCenter folder and name, or the name alone. An export cannot
    resume. Differences need the earlier snapshot, which has to be kept in the pool.
    """

    name = "xenserver"
    traits = ExportTraits(differences=True)

    def __init__(self, settings: XenServerSettings) -> None:
        self.location = settings.location
        self._connection = PoolConnection(settings)
        self._inventory = Inventory(self._connection)
        self._leftovers = Leftovers(self._connection, self._inventory)
        self._snapshots = Snapshots(self._connection, self._inventory, self._leftovers)
        self._pool_id = ""

    def product(self) -> str:
        """Return brand, version and pool: ``XenServer 8.4.0, pool 'frankfurt'``."""
        pool = self._inventory.pool()
        host = self._inventory.record("host", pool.text("master"))
        version = host.mapping("software_version")
        brand = version.get("product_brand") or "xapi"
        number = version.get("product_version") or version.get("xapi", "")
        return f"{brand} {number}, pool '{pool.text('name_label')}'"

    def find_vm(self, path: str) -> Vm:
        """Return a machine by folder and name, by name, or by uuid.

        Templates, snapshots and control domains are none.
        """
        return self._inventory.find(path)

    def check_permissions(self, vm: Vm, *, takes_snapshot: bool) -> list[PermissionGap]:
        """Compare the session's permissions with those that an export needs.

        Roles hold for the whole pool, so ``vm`` makes no difference.
        """
        del vm
        return permission_gaps(self._connection, takes_snapshot=takes_snapshot)

    def take_snapshot(self, vm: Vm, name: str) -> VmSnapshot:
        """Take a snapshot without memory; one of that name is returned as it is."""
        return self._snapshots.take(vm, name)

    def remove_snapshot(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """Remove a snapshot of ours with its disks and exports; one that is gone is no error."""
        self._snapshots.remove(vm, snapshot)

    def freeze(self, vm: Vm, snapshot: VmSnapshot, disk: VmDisk) -> FrozenDisk:
        """Look up the snapshot's own disk; its uuid is the change id."""
        if not self._pool_id:
            self._pool_id = self._inventory.pool().text("uuid")
        return self._snapshots.freeze(vm, snapshot, disk, self._pool_id)

    def open_stream(self, frozen: FrozenDisk, *, since: FrozenDisk | None = None) -> DiskStream:
        """Begin to receive the disk as VHD, above 2040 GiB raw."""
        return open_export(self._connection, self._leftovers, frozen, since)

    def open_ranges(self, frozen: FrozenDisk) -> VirtualDisk:
        """Refuse: xapi sends disks in one go."""
        raise HypervisorRefused(
            f"Cannot read parts of '{frozen.location}': XenServer sends disks in one go."
        )

    def changed_areas(
        self, frozen: FrozenDisk, since_change_id: str
    ) -> Sequence[tuple[int, int]] | None:
        """Return None: changed block tracking is not asked for here."""
        del frozen, since_change_id
        return None

    def tidy_up(self, vm: Vm) -> list[str]:
        """Forget failed exports of ours; detach the disks that they left attached to hosts."""
        return self._leftovers.tidy_up(vm)

    def close(self) -> None:
        """Sign out; may be called twice."""
        self._connection.close()
