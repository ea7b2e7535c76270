# References: vSphere Web Services API: VirtualMachine.CreateSnapshot_Task, VirtualMachineSnapshot.
"""Takes and removes snapshots of ours, and looks up what a snapshot froze."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import UTC
from typing import Any

from pyVmomi import vim

from imageport.errors import HypervisorRefused, HypervisorUnreachable, InputError, VmMissing
from imageport.hypervisor import OWN_PREFIX, Vm, VmDisk, VmSnapshot
from imageport.hypervisors.vsphere.session import VsphereSession

_TAKE_SECONDS = 900.0
"""Without memory and without quiescing a snapshot takes seconds; queues of a busy host do not."""
_REMOVE_SECONDS = 4 * 3600.0
"""What was written meanwhile is merged: slow where a machine ran for days on its snapshot."""
_DESCRIPTION = "Taken for an export; removed when it ends."
_DEPTH = 64
"""vSphere allows 32 snapshots in a chain."""


def snapshots_of(info: Any) -> tuple[VmSnapshot, ...]:
    """Return a machine's snapshots, parents first, of its property ``snapshot``."""
    return tuple(
        VmSnapshot(
            id=node.snapshot._moId,  # noqa: SLF001 - pyVmomi's documented way
            name=str(node.name),
            created=node.createTime.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        )
        for node in _nodes(info.rootSnapshotList if info is not None else [])
    )


def _nodes(roots: Any, depth: int = 0) -> Iterator[Any]:
    for node in roots or []:
        yield node
        if depth < _DEPTH:
            yield from _nodes(node.childSnapshotList, depth + 1)


def take_snapshot(session: VsphereSession, machine: Any, vm: Vm, name: str) -> VmSnapshot:
    """Take a snapshot without memory and without quiescing, or return the one of that name."""
    if not name.startswith(OWN_PREFIX):
        raise InputError(f"Bad snapshot name: found '{name}', needed one of '{OWN_PREFIX}…'.")
    for known in current_snapshots(session, machine, vm):
        if known.name == name:
            return known
    doing = f"take snapshot '{name}' of '{vm.location}'"
    task = session.call(
        doing,
        lambda: machine.CreateSnapshot(name, _DESCRIPTION, memory=False, quiesce=False),
        repeats=False,
    )
    made = session.wait_for_task(doing, task, deadline_seconds=_TAKE_SECONDS)
    for known in current_snapshots(session, machine, vm):
        if known.name == name and made is not None and known.id == made._moId:  # noqa: SLF001 - same
            return known
    raise VmMissing(f"Cannot {doing}: it is gone again.")


def remove_snapshot(session: VsphereSession, machine: Any, vm: Vm, snapshot: VmSnapshot) -> None:
    """Remove a snapshot that this product took; machine or snapshot may be gone.

    Raises:
        HypervisorUnreachable: its task is gone, and the snapshot is still there.
    """
    known = _current(session, machine, vm, snapshot)
    if not all(one.is_ours for one in [snapshot, *known]):
        raise InputError(
            f"Cannot remove snapshot '{snapshot.name}' of '{vm.location}': this product did not "
            f"take it."
        )
    if not known:
        return
    doing = f"remove snapshot '{snapshot.name}' of '{vm.location}'"
    one = session.managed(vim.vm.Snapshot, snapshot.id)
    with contextlib.suppress(VmMissing):
        task = session.call(
            doing, lambda: one.Remove(removeChildren=False, consolidate=True), repeats=False
        )
        session.wait_for_task(doing, task, deadline_seconds=_REMOVE_SECONDS)
        return
    # What is missing may be the task: a vCenter that starts again forgets those it had.
    if _current(session, machine, vm, snapshot):
        raise HypervisorUnreachable(f"Cannot {doing}: its task is gone, and it is still there.")


def _current(
    session: VsphereSession, machine: Any, vm: Vm, snapshot: VmSnapshot
) -> list[VmSnapshot]:
    with contextlib.suppress(VmMissing):
        return [one for one in current_snapshots(session, machine, vm) if one.id == snapshot.id]
    return []


def current_snapshots(session: VsphereSession, machine: Any, vm: Vm) -> tuple[VmSnapshot, ...]:
    """Return the snapshots as they are now."""
    doing = f"list the snapshots of '{vm.location}'"
    return snapshots_of(session.read_one(doing, machine, ["snapshot"]).get("snapshot"))


def frozen_device(
    session: VsphereSession, vm: Vm, snapshot: VmSnapshot, disk: VmDisk
) -> tuple[Any, list[Any]]:
    """Return the device of a disk as a snapshot has it, and all devices beside it.

    Raises:
        VmMissing: snapshot or disk are gone.
        HypervisorRefused: snapshots do not freeze this disk.
    """
    doing = f"look at snapshot '{snapshot.name}' of '{vm.location}'"
    one = session.managed(vim.vm.Snapshot, snapshot.id)
    facts = session.read_one(doing, one, ["config.hardware.device"])
    devices = list(facts.get("config.hardware.device", []))
    for device in devices:
        if isinstance(device, vim.vm.device.VirtualDisk) and str(device.key) == disk.key:
            mode = str(getattr(device.backing, "diskMode", "") or "")
            if mode.startswith("independent"):
                raise HypervisorRefused(
                    f"Cannot export {disk.label} of '{vm.location}': its mode is '{mode}', so no "
                    f"snapshot freezes it.",
                    hint="Set the disk's mode to 'Dependent', or name another disk.",
                )
            return device, devices
    raise VmMissing(f"Cannot {doing}: it has no {disk.label} ({disk.key}).")
