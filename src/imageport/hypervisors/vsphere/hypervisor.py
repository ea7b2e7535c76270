"""The interface of a hypervisor over one vCenter."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

from imageport.cloud import PermissionGap
from imageport.errors import HypervisorRefused, VmMissing
from imageport.formats.disk_stream import DiskStream
from imageport.formats.virtual_disk import VirtualDisk
from imageport.hypervisor import ExportTraits, FrozenDisk, Hypervisor, Vm, VmDisk, VmSnapshot
from imageport.hypervisors.vsphere import changed_areas as tracking
from imageport.hypervisors.vsphere import snapshots
from imageport.hypervisors.vsphere.datastore_disk import (
    DatastoreDisk,
    FlatFile,
    frozen_backing,
    holes_read_as_zeros,
    open_flat,
)
from imageport.hypervisors.vsphere.inventory import Inventory, size_of
from imageport.hypervisors.vsphere.lease_stream import LeaseStream
from imageport.hypervisors.vsphere.privileges import Entities, missing_privileges
from imageport.hypervisors.vsphere.session import VsphereSession
from imageport.hypervisors.vsphere.settings import VsphereSettings


class VsphereHypervisor(Hypervisor):
    """A vCenter Server, or one ESXi host by itself; connects at the first question."""

    name = "vsphere"
    traits = ExportTraits(streams=True, ranges=True, changed_areas=True)

    def __init__(self, settings: VsphereSettings) -> None:
        self.location = settings.location
        self._session = VsphereSession(settings)
        self._inventory = Inventory(self._session)

    def product(self) -> str:
        """Return what answers, as it calls itself: ``VMware vCenter Server 8.0.3 build-…``."""
        return str(self._session.content.about.fullName)

    def find_vm(self, path: str) -> Vm:
        """Return a machine by its inventory path, or by its name where only one has it."""
        return self._inventory.find(path)

    def check_permissions(self, vm: Vm, *, takes_snapshot: bool) -> list[PermissionGap]:
        """Ask vCenter which of the needed privileges the user has."""
        machine = self._inventory.reference(vm)
        datacenter, _ = self._inventory.datacenter(machine)
        where = Entities(vm.location, machine, datacenter)
        return missing_privileges(self._session, where, takes_snapshot=takes_snapshot)

    def take_snapshot(self, vm: Vm, name: str) -> VmSnapshot:
        """Take a snapshot of the disks, or return the one of that name."""
        return snapshots.take_snapshot(self._session, self._inventory.reference(vm), vm, name)

    def remove_snapshot(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """Remove a snapshot of ours; waits until its disks are merged."""
        with contextlib.suppress(VmMissing):  # the machine: its snapshots went with it
            machine = self._inventory.reference(vm)
            snapshots.remove_snapshot(self._session, machine, vm, snapshot)

    def freeze(self, vm: Vm, snapshot: VmSnapshot, disk: VmDisk) -> FrozenDisk:
        """Look up size and change id of the disk in the snapshot."""
        device, _ = snapshots.frozen_device(self._session, vm, snapshot, disk)
        return FrozenDisk(
            hypervisor_id=str(self._session.content.about.instanceUuid or self.location),
            vm=vm,
            snapshot=snapshot,
            disk=disk,
            size_bytes=size_of(device),
            change_id=str(getattr(device.backing, "changeId", "") or ""),
        )

    def open_stream(self, frozen: FrozenDisk, *, since: FrozenDisk | None = None) -> DiskStream:
        """Begin an export lease and read its stream-optimized VMDK."""
        if since is not None:
            raise HypervisorRefused(
                f"Cannot send what changed in '{frozen.location}': an export lease sends all of it."
            )
        return LeaseStream(self._session, frozen)

    def open_ranges(self, frozen: FrozenDisk) -> VirtualDisk:
        """Open the flat file that the snapshot keeps as it is."""
        machine = self._inventory.reference(frozen.vm)
        backing = self._frozen_backing(machine, frozen)
        _, datacenter = self._inventory.datacenter(machine)
        file = open_flat(FlatFile(self._session, datacenter, backing), frozen)
        try:
            allocated = tracking.allocated_areas(self._session, machine, frozen)
            # A master of which nothing was ever allocated is none: then nobody can tell.
            if not allocated or not holes_read_as_zeros(file, allocated, frozen.size_bytes):
                allocated = None
            return DatastoreDisk(
                file, frozen, allocated, lambda: self._check_frozen(machine, frozen, backing)
            )
        except BaseException:
            file.close()
            raise

    def changed_areas(
        self, frozen: FrozenDisk, since_change_id: str
    ) -> Sequence[tuple[int, int]] | None:
        """Ask changed block tracking, to the end of the disk."""
        machine = self._inventory.reference(frozen.vm)
        return tracking.changed_areas(self._session, machine, frozen, since_change_id)

    def tidy_up(self, vm: Vm) -> list[str]:
        """Do nothing: vCenter lists no leases, and ends those of a killed run by itself.

        A lease that nobody renews is over after its timeout, five minutes as a rule.
        """
        _ = vm
        return []

    def close(self) -> None:
        """Log out."""
        self._session.close()

    def _frozen_backing(self, machine: Any, frozen: FrozenDisk) -> str:
        device, _ = snapshots.frozen_device(self._session, frozen.vm, frozen.snapshot, frozen.disk)
        facts = self._session.read_one(
            f"look at '{frozen.vm.location}'", machine, ["config.hardware.device"]
        )
        current = [
            one
            for one in facts.get("config.hardware.device", [])
            if str(one.key) == frozen.disk.key
        ]
        return frozen_backing(device, current[0] if current else None, frozen)

    def _check_frozen(self, machine: Any, frozen: FrozenDisk, backing: str) -> None:
        found = self._frozen_backing(machine, frozen)
        if found != backing:
            raise HypervisorRefused(
                f"Cannot read parts of '{frozen.location}': the snapshot's file was '{backing}' "
                f"and is '{found}'."
            )
