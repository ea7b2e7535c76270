"""A hypervisor in memory: as strict as the interface, with faults on demand."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence

from imageport.cloud import PermissionGap
from imageport.errors import (
    ExportInterrupted,
    HypervisorRefused,
    InputError,
    VerificationFailed,
    VmMissing,
)
from imageport.formats._extent_merge import allocated_extents, merged
from imageport.formats.disk_stream import DiskStream
from imageport.formats.virtual_disk import PIECE_BYTES, VirtualDisk
from imageport.hypervisor import OWN_PREFIX, FrozenDisk, Hypervisor, Vm, VmDisk, VmSnapshot
from imageport.hypervisors.memory_pool import (
    MemoryPool,
    MemorySnapshotDisk,
    areas_of,
    read_grains,
)
from imageport.model import Extent, ExtentState


class MemoryHypervisor(Hypervisor):
    """One connection to a `MemoryPool`; several see each other's snapshots."""

    name = "memory"
    location = "memory"

    def __init__(self, pool: MemoryPool | None = None) -> None:
        self.pool = pool if pool is not None else MemoryPool()
        self.traits = self.pool.traits
        self._id = str(uuid.uuid4())
        self._is_open = False

    def product(self) -> str:
        """Return a name; counts as a connection."""
        self._connect()
        return "memory 1"

    def find_vm(self, path: str) -> Vm:
        """Return a machine by its location, or by its last part where only one has it."""
        self._connect()
        with self.pool.lock:
            facts = [machine.facts() for machine in self.pool.machines.values()]
        found = [vm for vm in facts if path in {vm.location, vm.name}]
        if not found:
            known = ", ".join(f"'{vm.location}'" for vm in facts) or "none"
            raise VmMissing(f"Cannot find machine '{path}': there are {known}.")
        if len(found) > 1:
            places = ", ".join(f"'{vm.location}'" for vm in found)
            raise InputError(f"Bad machine '{path}': found {places}, needed one of them.")
        return found[0]

    def check_permissions(self, vm: Vm, *, takes_snapshot: bool) -> list[PermissionGap]:
        """Return what the faults say."""
        self._connect()
        self.pool.machine(vm)
        gaps = list(self.pool.faults.gaps)
        return gaps if takes_snapshot else [gap for gap in gaps if gap.needed_for != "snapshot"]

    def take_snapshot(self, vm: Vm, name: str) -> VmSnapshot:
        """Freeze every disk of the machine."""
        self._connect()
        if not name.startswith(OWN_PREFIX):
            raise InputError(f"Bad snapshot name: found '{name}', needed one of '{OWN_PREFIX}…'.")
        with self.pool.lock:
            machine = self.pool.machine(vm)
            for known, _ in machine.snapshots.values():
                if known.name == name:
                    return known
            return machine.snapshot(name)

    def remove_snapshot(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """Forget a snapshot of ours, and the exports of it that other connections began."""
        self._connect()
        if not snapshot.is_ours:
            raise InputError(f"Cannot remove snapshot '{snapshot.name}': it is not ours.")
        with self.pool.lock:
            machine = self.pool.machines.get(vm.id)
            if machine is not None:
                machine.snapshots.pop(snapshot.id, None)
            for export, (exported, owner) in list(self.pool.exports.items()):
                if exported == snapshot.id and owner != self._id:
                    del self.pool.exports[export]

    def freeze(self, vm: Vm, snapshot: VmSnapshot, disk: VmDisk) -> FrozenDisk:
        """Look up the disk in the snapshot."""
        self._connect()
        with self.pool.lock:
            found = self.pool.frozen(vm, snapshot, disk.key)
        change_id = found.change_id if self._tracks else ""
        return FrozenDisk(self.pool.id, vm, snapshot, disk, found.size_bytes, change_id)

    def open_stream(self, frozen: FrozenDisk, *, since: FrozenDisk | None = None) -> DiskStream:
        """Begin to send what is stored, or what changed since an earlier snapshot."""
        self._connect()
        with self.pool.lock:
            found = self._frozen(frozen)
            grains = sorted(found.grains)
            if since is not None:
                grains = self._differences(frozen, found, since)
            return MemoryStream(self, frozen, areas_of(grains, found.size_bytes))

    def open_ranges(self, frozen: FrozenDisk) -> VirtualDisk:
        """Open the disk in the snapshot."""
        self._connect()
        if not self.traits.ranges or self.pool.faults.ranges_refused:
            cause = self.pool.faults.ranges_refused or "it is read in one go only"
            raise HypervisorRefused(f"Cannot read parts of '{frozen.location}': {cause}.")
        with self.pool.lock:
            self._frozen(frozen)
            return MemoryRanges(self.pool, frozen)

    def changed_areas(
        self, frozen: FrozenDisk, since_change_id: str
    ) -> Sequence[tuple[int, int]] | None:
        """Return what was written after the earlier change id was given."""
        self._connect()
        with self.pool.lock:
            found = self._frozen(frozen)
            tracker, _, epoch = since_change_id.rpartition("/")
            ours, _, last = found.change_id.rpartition("/")
            known = self._tracks and tracker == ours and epoch.isdigit()
            if not known or int(epoch) > int(last):
                return None
            later = [index for index, at in found.changed.items() if at > int(epoch)]
            return areas_of(later, found.size_bytes)

    def tidy_up(self, vm: Vm) -> list[str]:
        """Do nothing: an export that fails ends at once."""
        self._connect()
        self.pool.machine(vm)
        return []

    def close(self) -> None:
        """Log out."""
        if self._is_open:
            self._is_open = False
            self.pool.connections -= 1

    @property
    def id(self) -> str:
        """Return what the pool knows this connection by."""
        return self._id

    @property
    def _tracks(self) -> bool:
        return self.traits.changed_areas

    def _connect(self) -> None:
        self.pool.check_reachable()
        if not self._is_open:
            self._is_open = True
            self.pool.connections += 1

    def _frozen(self, frozen: FrozenDisk) -> MemorySnapshotDisk:
        return self.pool.frozen(frozen.vm, frozen.snapshot, frozen.disk.key)

    def _differences(
        self, frozen: FrozenDisk, found: MemorySnapshotDisk, since: FrozenDisk
    ) -> list[int]:
        try:
            if not self.traits.differences or since.disk.key != frozen.disk.key:
                raise VmMissing("no")
            earlier = self._frozen(since)
        except VmMissing:
            raise HypervisorRefused(
                f"Cannot send what changed in '{frozen.location}': "
                f"'{since.location}' is no snapshot to compare with."
            ) from None
        return [
            index
            for index in sorted(earlier.grains.keys() | found.grains.keys())
            if earlier.grains.get(index) != found.grains.get(index)
        ]


class MemoryStream(DiskStream):
    """A disk leaving the pool; while it is open, the pool counts an export."""

    format_name = "memory-stream"

    def __init__(
        self, hypervisor: MemoryHypervisor, frozen: FrozenDisk, areas: list[tuple[int, int]]
    ) -> None:
        self.location = frozen.location
        self._pool = hypervisor.pool
        self._frozen = frozen
        self._areas = areas
        self._export = str(uuid.uuid4())
        self._reader = _Reader(self._pool, frozen)
        self._damaged = self._pool.faults.wrong_checksums > 0
        self._pool.faults.wrong_checksums -= self._damaged
        self._sent_bytes = sum(length for _, length in areas)
        self._pool.exports[self._export] = (frozen.snapshot.id, hypervisor.id)

    @property
    def size_bytes(self) -> int:
        """Return the size as the snapshot has it."""
        return self._frozen.size_bytes

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield what is stored."""
        for offset, length in self._areas:
            for start in range(offset, offset + length, PIECE_BYTES):
                if self._export not in self._pool.exports:
                    raise self._reader.interrupted("the export was ended")
                count = min(PIECE_BYTES, offset + length - start)
                data = self._reader.read(start, count)
                yield start, bytes(byte ^ 1 for byte in data) if self._damaged else data

    def finish(self) -> str:
        """Compare what was sent with what was to be sent; ends the export."""
        self.close()
        if self._damaged or self._reader.received_bytes != self._sent_bytes:
            raise VerificationFailed(
                f"Bad export of '{self.location}': found {self._reader.received_bytes} bytes"
                f"{' with another checksum' * self._damaged}, needed {self._sent_bytes}."
            )
        return f"{self._sent_bytes} bytes as they were sent"

    def close(self) -> None:
        """End the export."""
        self._pool.exports.pop(self._export, None)


class MemoryRanges(VirtualDisk):
    """A disk in a snapshot, read by ranges."""

    format_name = "memory-ranges"
    sector_bytes = 512

    def __init__(self, pool: MemoryPool, frozen: FrozenDisk) -> None:
        self.location = frozen.location
        self._pool = pool
        self._frozen = frozen
        self._reader = _Reader(pool, frozen)

    @property
    def size_bytes(self) -> int:
        """Return the size as the snapshot has it."""
        return self._frozen.size_bytes

    def extents(self) -> Iterator[Extent]:
        """Yield DATA for what is stored, HOLE for the rest."""
        stored = areas_of(list(self._reader.disk().grains), self.size_bytes)
        return merged(allocated_extents(stored, 0, self.size_bytes, ExtentState.HOLE))

    def read_at(self, offset_bytes: int, length_bytes: int) -> bytes:
        """Return the bytes."""
        end = offset_bytes + length_bytes
        if offset_bytes < 0 or length_bytes < 0 or end > self.size_bytes:
            raise InputError(
                f"Cannot read '{self.location}': bytes {offset_bytes}..{end} were asked for, "
                f"the disk has {self.size_bytes}."
            )
        return self._reader.read(offset_bytes, length_bytes)

    def content_key(self) -> str:
        """Return the identity of what is frozen."""
        return f"memory:{self._frozen.key}"

    def check_unchanged(self) -> None:
        """Do nothing: what is frozen does not change."""

    def close(self) -> None:
        """Do nothing: the other side holds nothing for ranges."""


class _Reader:
    """Reads a frozen disk as over a network that breaks where the faults say."""

    def __init__(self, pool: MemoryPool, frozen: FrozenDisk) -> None:
        self._pool = pool
        self._frozen = frozen
        self._cut = pool.next_cut()
        self.received_bytes = 0

    def disk(self) -> MemorySnapshotDisk:
        frozen = self._frozen
        try:
            return self._pool.frozen(frozen.vm, frozen.snapshot, frozen.disk.key)
        except VmMissing:
            raise self.interrupted("its snapshot is gone") from None

    def read(self, offset: int, length: int) -> bytes:
        self._pool.faults.on_piece(self.received_bytes)
        with self._pool.lock:
            if self._cut is not None and self.received_bytes + length > self._cut:
                raise self.interrupted("the connection was cut")
            data = read_grains(self.disk().grains, offset, length)
            self.received_bytes += length
            self._pool.sent_bytes += length
        return data

    def interrupted(self, cause: str) -> ExportInterrupted:
        return ExportInterrupted(
            f"Cannot go on receiving '{self._frozen.location}' after {self.received_bytes} "
            f"bytes: {cause}."
        )
