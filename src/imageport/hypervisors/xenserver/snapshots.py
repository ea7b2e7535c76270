# References: XenServer Management API, VM.snapshot; xapi-project/xen-api, ocaml/xapi: xapi_vm_clone
# (a snapshot is a VM with VBDs of its own and no suspend_VDI), xapi_vdi (destroy).
"""Snapshots of a machine: take, look up, remove. Of ours only."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from imageport.errors import HypervisorRefused, InputError, VmMissing
from imageport.hypervisor import OWN_PREFIX, FrozenDisk, Vm, VmDisk, VmSnapshot
from imageport.hypervisors.xenserver.connection import PoolConnection
from imageport.hypervisors.xenserver.inventory import AttachedDisk, Inventory
from imageport.hypervisors.xenserver.leftovers import Leftovers
from imageport.hypervisors.xenserver.records import NULL, ApiRecord

IN_USE_SECONDS: Final = 120.0
"""xapi may detach a disk after its export's task has ended (xen-api #4339); iSCSI takes longest."""
_PAUSE_SECONDS: Final = 0.5
_IN_USE: Final = {"VDI_IN_USE", "OTHER_OPERATION_IN_PROGRESS", "VDI_NOT_AVAILABLE"}


class Snapshots:
    """Snapshots of one pool's machines."""

    def __init__(
        self, connection: PoolConnection, inventory: Inventory, leftovers: Leftovers
    ) -> None:
        self._connection = connection
        self._inventory = inventory
        self._leftovers = leftovers

    def take(self, vm: Vm, name: str) -> VmSnapshot:
        """Take a snapshot without memory; one of that name is returned as it is."""
        if not name.startswith(OWN_PREFIX):
            raise InputError(f"Bad snapshot name: found '{name}', needed one of '{OWN_PREFIX}…'.")
        machine = self._inventory.machine(vm)
        for known in self._inventory.snapshots_of(self._inventory.record("VM", machine)):
            if known.name == name:
                return known
        doing = f"take snapshot '{name}' of '{vm.location}'"
        # Never sent twice: an answer that is lost may belong to a snapshot that was made, which
        # the next run finds by its name.
        ref = self._connection.text("VM.snapshot", machine, name, doing=doing, repeatable=False)
        made = self._inventory.record("VM", ref)
        return VmSnapshot(made.text("uuid"), made.text("name_label"), made.time("snapshot_time"))

    def freeze(self, vm: Vm, snapshot: VmSnapshot, disk: VmDisk, pool_id: str) -> FrozenDisk:
        """Look up what the snapshot has of the disk."""
        what = f"disk '{disk.label}' in snapshot '{snapshot.name}' of '{vm.location}'"
        _, record = self._snapshot(vm, snapshot, what)
        current = self._connection.text("VDI.get_by_uuid", disk.key, doing=f"find {what}")
        frozen = self._match(vm, current, self._inventory.disks_of(record))
        if frozen is None:
            raise VmMissing(f"Cannot find {what}: it was not attached when that was taken.")
        return FrozenDisk(
            hypervisor_id=pool_id,
            vm=vm,
            snapshot=snapshot,
            disk=disk,
            size_bytes=frozen.size_bytes,
            change_id=frozen.vdi_uuid,
        )

    def remove(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """Remove a snapshot of ours with its disks; one that is gone is no error.

        The disks go first: a removal that is interrupted leaves a snapshot that can be found
        again, and no disks that nobody knows.
        """
        what = f"snapshot '{snapshot.name}' of '{vm.location}'"
        if not snapshot.is_ours:
            raise InputError(f"Cannot remove {what}: it is not ours.")
        self._leftovers.end_exports(vm, snapshot)
        try:
            ref, record = self._snapshot(vm, snapshot, what)
        except VmMissing:
            return
        if not record.text("name_label").startswith(OWN_PREFIX):
            raise InputError(f"Cannot remove {what}: it has another name now.")
        for disk in self._inventory.disks_of(record):
            if disk.is_a_snapshot and not self._belongs_to_others(disk, ref):
                self._destroy(disk.vdi, what)
        # Memory is not ours to remove: VM.snapshot freezes none, and a checkpoint may share the
        # machine's own.
        self._gone("VM.destroy", ref, f"remove {what}")

    def _snapshot(self, vm: Vm, snapshot: VmSnapshot, what: str) -> tuple[str, ApiRecord]:
        ref = self._connection.text("VM.get_by_uuid", snapshot.id, doing=f"find {what}")
        record = self._inventory.record("VM", ref)
        if not record.flag("is_a_snapshot") or not self._is_of(vm, record):
            raise InputError(f"Bad snapshot: found '{snapshot.name}', no snapshot of '{vm.name}'.")
        return ref, record

    def _is_of(self, vm: Vm, snapshot: ApiRecord) -> bool:
        try:
            return snapshot.text("snapshot_of") == self._inventory.machine(vm)
        except VmMissing:
            return True  # the machine is gone: its snapshots are found by their uuids alone

    def _match(self, vm: Vm, current: str, frozen: list[AttachedDisk]) -> AttachedDisk | None:
        """Return the frozen disk: the one taken of this VDI, wherever it was attached.

        Where a storage manager does not say of what it was taken, the position decides.
        """
        for one in frozen:
            if one.snapshot_of == current:
                return one
        machine = self._inventory.record("VM", self._inventory.machine(vm))
        places = {one.position for one in self._inventory.disks_of(machine) if one.vdi == current}
        for one in frozen:
            if one.snapshot_of == NULL and one.position in places:
                return one
        return None

    def _belongs_to_others(self, disk: AttachedDisk, snapshot: str) -> bool:
        """Tell whether a machine uses the disk: somebody has made more of our snapshot."""
        for ref in disk.attachments:
            try:
                owner = self._inventory.record("VBD", ref).text("VM")
                if owner != snapshot and not self._leftovers.is_control_domain(owner):
                    return True
            except VmMissing:
                continue  # detached meanwhile
        return False

    def _destroy(self, vdi: str, what: str) -> None:
        """Destroy a disk of a snapshot; what a failed export left attached is detached first."""
        end = time.monotonic() + IN_USE_SECONDS
        while True:
            self._leftovers.detach(vdi)
            try:
                self._gone("VDI.destroy", vdi, f"remove a disk of {what}")
            except HypervisorRefused as error:
                busy = error.fields.get("xapi_code") in _IN_USE
                if not busy or time.monotonic() > end:
                    raise
                time.sleep(_PAUSE_SECONDS)
            else:
                return

    def _gone(self, method: str, ref: str, doing: str) -> None:
        with contextlib.suppress(VmMissing):  # somebody, or an earlier run, did it
            self._connection.call(method, ref, doing=doing)
