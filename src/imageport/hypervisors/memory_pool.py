"""The machines, disks and snapshots of a hypervisor in memory, and the faults it can have."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from imageport.cloud import PermissionGap
from imageport.errors import HypervisorUnreachable, InputError, VmMissing
from imageport.hypervisor import ExportTraits, Vm, VmDisk, VmSnapshot
from imageport.model import MIB

GRAIN_BYTES = 64 * 1024
"""What is stored and tracked as one: as large as XenServer's, a multiple of VMware's."""

FIRST_DAY = datetime(2026, 1, 1, tzinfo=UTC)
"""Of a machine's first snapshot; each later one is a minute younger, whatever the clock says."""


def unhindered(_received_bytes: int) -> None:
    """Let every piece through."""


@dataclass
class MemoryFaults:
    """What goes wrong next; counts go down as faults happen."""

    unreachable: int = 0
    """So many calls get no answer."""
    gaps: list[PermissionGap] = field(default_factory=list)
    """What `check_permissions` finds missing."""
    cut_after_bytes: list[int] = field(default_factory=list)
    """Each opened stream or disk takes the first: it breaks after so many bytes."""
    wrong_checksums: int = 0
    """So many streams arrive damaged: `finish` finds it."""
    ranges_refused: str = ""
    """Why `open_ranges` says no; empty lets it."""
    on_piece: Callable[[int], None] = unhindered
    """Called before each piece with the bytes received so far; may remove, cancel, kill."""


@dataclass
class MemoryVmDisk:
    """A disk of a machine; a grain that was never written is a hole."""

    key: str
    label: str
    size_bytes: int
    is_boot: bool = False
    grains: dict[int, bytes] = field(default_factory=dict)
    changed: dict[int, int] = field(default_factory=dict)
    """Grain → the epoch in which it was last written."""
    epoch: int = 1
    tracker: str = field(default_factory=lambda: str(uuid.uuid4()))
    """Change ids of another tracker mean nothing here: the disk was replaced."""

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return the bytes; holes read as zeros."""
        return read_grains(self.grains, offset_bytes, length_bytes)

    def write_at(self, offset_bytes: int, data: bytes) -> None:
        """Write as the guest does."""
        if offset_bytes < 0 or offset_bytes + len(data) > self.size_bytes:
            raise InputError(f"Cannot write '{self.label}': it has {self.size_bytes} bytes.")
        done = 0
        for index, start, count in cut(offset_bytes, len(data)):
            grain = bytearray(self.grains.get(index, bytes(GRAIN_BYTES)))
            grain[start : start + count] = data[done : done + count]
            self.grains[index] = bytes(grain)
            self.changed[index] = self.epoch
            done += count

    @property
    def change_id(self) -> str:
        """Return what stands for all that was written so far."""
        return f"{self.tracker}/{self.epoch}"


@dataclass
class MemorySnapshotDisk:
    """A disk as a snapshot has it."""

    size_bytes: int
    grains: dict[int, bytes]
    changed: dict[int, int]
    change_id: str


@dataclass
class MemoryVm:
    """A machine; its location is its path."""

    id: str
    location: str
    firmware: str = "efi"
    is_running: bool = False
    disks: list[MemoryVmDisk] = field(default_factory=list)
    snapshots: dict[str, tuple[VmSnapshot, dict[str, MemorySnapshotDisk]]] = field(
        default_factory=dict
    )
    snapshots_taken: int = 0

    def add_disk(self, size_bytes: int, content: bytes = b"", *, boot: bool = False) -> None:
        """Add a disk; of ``content`` what is zeros stays a hole."""
        number = len(self.disks)
        disk = MemoryVmDisk(str(2000 + number), f"Hard disk {number + 1}", size_bytes, boot)
        for start in range(0, len(content), GRAIN_BYTES):
            grain = content[start : start + GRAIN_BYTES]
            if any(grain):
                disk.write_at(start, grain)
        self.disks.append(disk)

    def snapshot(self, name: str) -> VmSnapshot:
        """Freeze every disk; what is written from now on is a new epoch."""
        self.snapshots_taken += 1
        created = FIRST_DAY + timedelta(minutes=self.snapshots_taken)
        taken = VmSnapshot(f"snapshot-{uuid.uuid4()}", name, created.strftime("%Y-%m-%dT%H:%M:%SZ"))
        frozen: dict[str, MemorySnapshotDisk] = {}
        for disk in self.disks:
            frozen[disk.key] = MemorySnapshotDisk(
                disk.size_bytes, dict(disk.grains), dict(disk.changed), disk.change_id
            )
            disk.epoch += 1
        self.snapshots[taken.id] = (taken, frozen)
        return taken

    def facts(self) -> Vm:
        """Return the machine as its inventory describes it."""
        disks = [
            VmDisk(disk.key, disk.label, disk.size_bytes, disk.is_boot, place="memory")
            for disk in self.disks
        ]
        return Vm(
            id=self.id,
            name=self.location.rsplit("/", 1)[-1],
            location=self.location,
            firmware=self.firmware,
            is_running=self.is_running,
            disks=tuple(disks),
            snapshots=tuple(snapshot for snapshot, _ in self.snapshots.values()),
        )


@dataclass
class MemoryPool:
    """What several connections see: machines, open exports, faults."""

    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    traits: ExportTraits = field(
        default_factory=lambda: ExportTraits(ranges=True, changed_areas=True, differences=True)
    )
    machines: dict[str, MemoryVm] = field(default_factory=dict)
    """By id."""
    exports: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Exports under way, as the other side sees them: id → (snapshot's id, connection's id)."""
    faults: MemoryFaults = field(default_factory=MemoryFaults)
    connections: int = 0
    sent_bytes: int = 0
    """Left the pool in streams and by ranges; tells what a run read."""
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, location: str, *, size_bytes: int = 8 * MIB, content: bytes = b"") -> MemoryVm:
        """Add a machine with one disk, from which it starts."""
        machine = MemoryVm(str(uuid.uuid4()), location)
        machine.add_disk(size_bytes, content, boot=True)
        self.machines[machine.id] = machine
        return machine

    def check_reachable(self) -> None:
        """Raise `HypervisorUnreachable` while the fault lasts."""
        with self.lock:
            if self.faults.unreachable:
                self.faults.unreachable -= 1
                raise HypervisorUnreachable("Cannot reach 'memory': no answer.")

    def machine(self, vm: Vm) -> MemoryVm:
        """Return a machine; `VmMissing` when it was deleted."""
        found = self.machines.get(vm.id)
        if found is None:
            raise VmMissing(f"Cannot find '{vm.location}': it was deleted.")
        return found

    def frozen(self, vm: Vm, snapshot: VmSnapshot, key: str) -> MemorySnapshotDisk:
        """Return a disk as a snapshot has it; `VmMissing` when one of them is gone."""
        _, disks = self.machine(vm).snapshots.get(snapshot.id, (snapshot, {}))
        if key not in disks:
            raise VmMissing(f"Cannot find '{vm.location}@{snapshot.name}', disk {key}.")
        return replace(disks[key])

    def next_cut(self) -> int | None:
        """Return after how many bytes what is opened now breaks; None if it does not."""
        with self.lock:
            cuts = self.faults.cut_after_bytes
            return cuts.pop(0) if cuts else None


def cut(offset: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Yield (grain, start in it, count) that cover a range."""
    end = offset + length
    while offset < end:
        index, start = divmod(offset, GRAIN_BYTES)
        count = min(GRAIN_BYTES - start, end - offset)
        yield index, start, count
        offset += count


def read_grains(grains: dict[int, bytes], offset: int, length: int) -> bytes:
    """Return a range; what is not stored reads as zeros."""
    return b"".join(
        grains[index][start : start + count] if index in grains else bytes(count)
        for index, start, count in cut(offset, length)
    )


def areas_of(grains: list[int], size_bytes: int) -> list[tuple[int, int]]:
    """Return (offset, length) of grains, neighbours joined, inside the disk."""
    found: list[tuple[int, int]] = []
    for index in sorted(grains):
        offset = index * GRAIN_BYTES
        length = min(GRAIN_BYTES, size_bytes - offset)
        if found and sum(found[-1]) == offset:
            found[-1] = (found[-1][0], found[-1][1] + length)
        elif length > 0:
            found.append((offset, length))
    return found
