# References: XenServer Management API, classes VM, VBD, VDI, SR, pool.
"""Machines of a pool: found by name, folder or uuid, and described."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from imageport.errors import InputError, VmMissing
from imageport.hypervisor import Vm, VmDisk, VmSnapshot
from imageport.hypervisors.xenserver.connection import PoolConnection
from imageport.hypervisors.xenserver.records import NULL, ApiRecord

FOLDER_KEY: Final = "folder"
"""Where XenCenter keeps the folder of an object, in ``other_config``."""
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class AttachedDisk:
    """A disk of a machine or snapshot: the VBD's facts with the VDI's."""

    vdi: str
    """Reference."""
    vdi_uuid: str
    name: str
    size_bytes: int
    storage: str
    """Reference of the SR."""
    snapshot_of: str
    """Reference of the VDI it was taken of; NULL for a disk that is no snapshot."""
    is_a_snapshot: bool
    position: str
    bootable: bool
    attachments: tuple[str, ...]
    """References of all VBDs of the VDI."""


class Inventory:
    """Reads; changes nothing."""

    def __init__(self, connection: PoolConnection) -> None:
        self._connection = connection

    def pool(self) -> ApiRecord:
        """Return the pool's record."""
        return next(iter(self._connection.records("pool").values()), ApiRecord("pool", {}))

    def find(self, path: str) -> Vm:
        """Return a machine by uuid, by name, or by folder and name.

        Raises:
            VmMissing: none; the message says how far the path leads.
            InputError: several; the message has their places and uuids.
        """
        folder, _, name = path.rpartition("/")
        candidates = self._named(path) or self._by_uuid(path)
        if candidates or not folder:
            return self._only(path, candidates, candidates)
        candidates = self._named(name)
        wanted = f"/{folder.strip('/')}"
        found = [(ref, record) for ref, record in candidates if _folder(record) == wanted]
        return self._only(path, found, candidates)

    def _only(
        self,
        path: str,
        found: list[tuple[str, ApiRecord]],
        candidates: list[tuple[str, ApiRecord]],
    ) -> Vm:
        if len(found) == 1:
            return self.describe(found[0][1])
        if not found:
            where = "; ".join(_place(record) for _, record in candidates)
            cause = f"the only of that name are {where}" if where else "no machine has that name"
            raise VmMissing(
                f"Cannot find machine '{path}' on '{self._connection.location}': {cause}."
            )
        places = "; ".join(_place(record) for _, record in found)
        raise InputError(
            f"Bad machine '{path}': found {len(found)} of that name: {places}; needed one.",
            hint="Name it by its folder or its uuid.",
        )

    def _named(self, name: str) -> list[tuple[str, ApiRecord]]:
        found = self.existing("VM", self._connection.texts("VM.get_by_name_label", name))
        return [(ref, record) for ref, record in found.items() if is_machine(record)]

    def _by_uuid(self, path: str) -> list[tuple[str, ApiRecord]]:
        if not _UUID.fullmatch(path):
            return []
        try:
            ref = self._connection.text("VM.get_by_uuid", path.lower())
        except VmMissing:
            return []
        record = self.record("VM", ref)
        return [(ref, record)] if is_machine(record) else []

    def record(self, kind: str, ref: str) -> ApiRecord:
        """Return an object's record; `VmMissing` when it is gone."""
        return ApiRecord(kind, self._connection.call(f"{kind}.get_record", ref))

    def existing(self, kind: str, refs: Iterable[str]) -> dict[str, ApiRecord]:
        """Return the records of those that still exist: backups take and remove all the time."""
        found = {}
        for ref in refs:
            with contextlib.suppress(VmMissing):
                found[ref] = self.record(kind, ref)
        return found

    def machine(self, vm: Vm) -> str:
        """Return a machine's reference; `VmMissing` when it is gone."""
        doing = f"find '{vm.location}'"
        return self._connection.text("VM.get_by_uuid", vm.id, doing=doing)

    def describe(self, record: ApiRecord) -> Vm:
        """Return what the interface says of a machine."""
        attached = self.disks_of(record)
        boot = _boot_disk(attached)
        labels = _labels(attached)
        disks = tuple(
            VmDisk(
                key=disk.vdi_uuid,
                label=label,
                size_bytes=disk.size_bytes,
                is_boot=disk is boot,
                place=self._storage_name(disk.storage),
            )
            for disk, label in zip(attached, labels, strict=True)
        )
        name, folder = record.text("name_label"), _folder(record)
        return Vm(
            id=record.text("uuid"),
            name=name,
            location=f"{folder}/{name}" if folder else name,
            firmware="efi" if _is_uefi(record) else "bios",
            is_running=record.text("power_state") != "Halted",
            disks=disks,
            snapshots=tuple(self.snapshots_of(record)),
        )

    def snapshots_of(self, machine: ApiRecord) -> Iterable[VmSnapshot]:
        """Return a machine's snapshots, oldest first."""
        made = [
            VmSnapshot(one.text("uuid"), one.text("name_label"), one.time("snapshot_time"))
            for one in self.existing("VM", machine.texts("snapshots")).values()
        ]
        return sorted(made, key=lambda snapshot: (snapshot.created, snapshot.name))

    def disks_of(self, machine: ApiRecord) -> list[AttachedDisk]:
        """Return a machine's or snapshot's disks by position; drives are none."""
        found = []
        for vbd in self.existing("VBD", machine.texts("VBDs")).values():
            if vbd.text("type") != "Disk" or vbd.flag("empty") or vbd.text("VDI") == NULL:
                continue
            try:
                vdi = self.record("VDI", vbd.text("VDI"))
            except VmMissing:
                continue  # destroyed; xapi collects the VBD later
            found.append(_attached(vbd, vdi))
        return sorted(found, key=lambda disk: _order(disk.position))

    def _storage_name(self, ref: str) -> str:
        try:
            return self._connection.text("SR.get_name_label", ref)
        except VmMissing:
            return ""


def is_machine(record: ApiRecord) -> bool:
    """Tell whether it is a machine of its own: no template, snapshot or control domain."""
    return not any(
        record.flag(name) for name in ("is_a_template", "is_a_snapshot", "is_control_domain")
    )


def _attached(vbd: ApiRecord, vdi: ApiRecord) -> AttachedDisk:
    return AttachedDisk(
        vdi=vbd.text("VDI"),
        vdi_uuid=vdi.text("uuid"),
        name=vdi.text("name_label"),
        size_bytes=vdi.number("virtual_size"),
        storage=vdi.text("SR"),
        snapshot_of=vdi.text("snapshot_of"),
        is_a_snapshot=vdi.flag("is_a_snapshot"),
        position=vbd.text("userdevice"),
        bootable=vbd.flag("bootable"),
        attachments=tuple(vdi.texts("VBDs")),
    )


def _boot_disk(disks: list[AttachedDisk]) -> AttachedDisk | None:
    """Return the one that is marked bootable; of several or none, the one in front."""
    marked = [disk for disk in disks if disk.bootable]
    return next(iter(marked or disks), None)


def _labels(disks: list[AttachedDisk]) -> list[str]:
    """Return names; with the position where a name says too little."""
    names = Counter(disk.name.casefold() for disk in disks)  # as they are asked for
    return [
        disk.name
        if disk.name and names[disk.name.casefold()] == 1
        else f"{disk.name or 'disk'} at position {disk.position}"
        for disk in disks
    ]


def _order(position: str) -> tuple[int, str]:
    return (int(position), "") if position.isascii() and position.isdigit() else (256, position)


def _folder(record: ApiRecord) -> str:
    return record.mapping("other_config").get(FOLDER_KEY, "").rstrip("/")


def _place(record: ApiRecord) -> str:
    name = record.text("name_label")
    return f"'{_folder(record)}/{name}' ({record.text('uuid')})"


def _is_uefi(record: ApiRecord) -> bool:
    return record.mapping("HVM_boot_params").get("firmware", "bios").casefold() == "uefi"
