"""The interface of a hypervisor: where master images live, and how a disk of one leaves it."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from imageport.closable import Closable
from imageport.cloud import PermissionGap
from imageport.errors import InputError, VmMissing
from imageport.formats.disk_stream import DiskStream
from imageport.formats.virtual_disk import VirtualDisk

OWN_PREFIX = "imageport-"
"""The beginning of the name of every snapshot that this product takes: no other is removed."""


@dataclass(frozen=True, slots=True)
class VmDisk:
    """One disk of a machine, in the machine's own order."""

    key: str
    """What the platform calls it for good: a device key, a VDI's uuid."""
    label: str
    """What its inventory shows: ``Hard disk 1``."""
    size_bytes: int
    is_boot: bool
    """Whether firmware starts from it; of one machine exactly one disk, unless it has none."""
    place: str = ""
    """Datastore path or storage repository, for reports."""


@dataclass(frozen=True, slots=True)
class VmSnapshot:
    """A snapshot of a machine; ``created`` is UTC, ISO 8601."""

    id: str
    name: str
    created: str = ""

    @property
    def is_ours(self) -> bool:
        """Tell whether this product took it."""
        return self.name.startswith(OWN_PREFIX)


@dataclass(frozen=True, slots=True)
class Vm:
    """A machine as its inventory describes it."""

    id: str
    """What the platform calls it for good, also after a restart: an instance uuid."""
    name: str
    location: str
    """Inventory path, for messages."""
    firmware: str
    """``efi`` or ``bios``."""
    is_running: bool
    disks: tuple[VmDisk, ...]
    snapshots: tuple[VmSnapshot, ...]

    def snapshot(self, name: str) -> VmSnapshot:
        """Return the one snapshot of a name; `VmMissing` lists those that there are."""
        found = [one for one in self.snapshots if one.name == name]
        if len(found) == 1:
            return found[0]
        names = ", ".join(f"'{one.name}'" for one in self.snapshots) or "none"
        if found:
            raise InputError(
                f"Bad snapshot '{name}' of '{self.location}': found {len(found)} of that name, "
                f"needed one."
            )
        raise VmMissing(f"Cannot find snapshot '{name}' of '{self.location}': it has {names}.")

    def disk(self, wanted: str = "") -> VmDisk:
        """Return the disk of a label or key; the boot disk when none is named.

        Raises:
            VmMissing: no such disk; the message lists those that there are.
        """
        for disk in self.disks:
            if disk.is_boot if not wanted else wanted.casefold() in _names(disk):
                return disk
        listed = "; ".join(f"{d.label} ({d.size_bytes} bytes)" for d in self.disks) or "none"
        what = f"disk '{wanted}'" if wanted else "a boot disk"
        raise VmMissing(f"Cannot find {what} of '{self.location}': it has {listed}.")


def _names(disk: VmDisk) -> set[str]:
    return {disk.key.casefold(), disk.label.casefold()}


@dataclass(frozen=True, slots=True)
class FrozenDisk:
    """A disk as a snapshot froze it: what is exported."""

    hypervisor_id: str
    """What the pool or vCenter calls itself for good: an instance uuid."""
    vm: Vm
    snapshot: VmSnapshot
    disk: VmDisk
    size_bytes: int
    """As the snapshot has it; the disk may have grown since."""
    change_id: str = ""
    """What the platform compares later snapshots with; empty when it tracks no changes."""

    @property
    def key(self) -> str:
        """Return the identity of this very content: same key, same bytes."""
        facts = (
            self.hypervisor_id, self.vm.id, self.snapshot.id, self.disk.key,
            str(self.size_bytes), self.change_id,
        )  # fmt: skip
        return hashlib.sha256("\0".join(facts).encode()).hexdigest()

    @property
    def location(self) -> str:
        """Return what it is, for messages."""
        return f"{self.vm.location}@{self.snapshot.name}/{self.disk.label}"


@dataclass(frozen=True, slots=True)
class ExportTraits:
    """What a platform can do; declared, never probed.

    ``streams``: `open_stream` sends a disk in one go, only what is allocated; it cannot resume.
    ``ranges``: `open_ranges` reads any part at any time, so that an export resumes.
    ``changed_areas``: `changed_areas` tells what changed since an earlier change id.
    ``differences``: `open_stream` can send only what changed since an earlier snapshot.
    """

    streams: bool = True
    ranges: bool = False
    changed_areas: bool = False
    differences: bool = False


class Hypervisor(Closable):
    """One vCenter, host or pool, for one run; reads master images and never changes them.

    The only thing that is ever created is a snapshot whose name begins with `OWN_PREFIX`. All
    methods may be called from several threads, and again after a crash. Errors are those below
    `HypervisorError`. Whoever opened it closes it.
    """

    name: str
    """``vsphere``, ``xenserver``, ``memory``."""
    location: str
    """Where it is, for messages; never holds a secret."""
    traits: ExportTraits

    @abstractmethod
    def product(self) -> str:
        """Return what answers, with its version; connects and logs in."""

    @abstractmethod
    def find_vm(self, path: str) -> Vm:
        """Return a machine by its inventory path, or by its name where only one has it.

        Raises:
            VmMissing: none; the message says how far the path leads.
            InputError: several; the message has their paths.
        """

    @abstractmethod
    def check_permissions(self, vm: Vm, *, takes_snapshot: bool) -> list[PermissionGap]:
        """Ask by name for every privilege that an export needs; changes nothing."""

    @abstractmethod
    def take_snapshot(self, vm: Vm, name: str) -> VmSnapshot:
        """Take a snapshot without memory and return it; one of that name is returned as it is.

        ``name`` begins with `OWN_PREFIX`.
        """

    @abstractmethod
    def remove_snapshot(self, vm: Vm, snapshot: VmSnapshot) -> None:
        """Remove a snapshot that this product took; one that is gone is no error.

        Exports of it that another connection began end: the caller knows that their run is over.
        `InputError` for any other: master images and their snapshots are never changed.
        """

    @abstractmethod
    def freeze(self, vm: Vm, snapshot: VmSnapshot, disk: VmDisk) -> FrozenDisk:
        """Look up what the snapshot has of the disk.

        `VmMissing` when snapshot or disk are gone.
        """

    @abstractmethod
    def open_stream(self, frozen: FrozenDisk, *, since: FrozenDisk | None = None) -> DiskStream:
        """Begin to receive the disk; with ``since``, only what changed since then.

        ``since`` only where ``traits.differences``, and may be refused by `HypervisorRefused`: the
        caller then asks for all of it. The stream's `close` ends what stands behind it.
        """

    @abstractmethod
    def open_ranges(self, frozen: FrozenDisk) -> VirtualDisk:
        """Open the disk for reading any part; only where ``traits.ranges``.

        Raises:
            HypervisorRefused: this disk cannot be read so; the caller streams it.
        """

    @abstractmethod
    def changed_areas(
        self, frozen: FrozenDisk, since_change_id: str
    ) -> Sequence[tuple[int, int]] | None:
        """Return (offset, length) of all that may differ from an earlier change id, ascending.

        Asked to the end of the disk. None when the platform cannot tell: then all may differ.
        Only where ``traits.changed_areas``.
        """

    @abstractmethod
    def tidy_up(self, vm: Vm) -> list[str]:
        """End what failed exports of this product left on a machine; say what was ended.

        What another run may be doing goes on: two images of a machine, or two sites, may export at
        once. Snapshots are the caller's business: it knows which of them a live run holds.
        """

    @abstractmethod
    def close(self) -> None:
        """Log out; may be called twice."""
