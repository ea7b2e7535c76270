"""Starting libguestfs on the job's disk: one machine per job, read-only unless it must write."""

from __future__ import annotations

import fcntl
import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from imageport.compose.volumes.partition_table import (
    HEAD_BYTES,
    Partition,
    PartitionTable,
    parse_partition_table,
)
from imageport.errors import EngineFailed, MissingTool

DEVICE = "/dev/sda"
"""As libguestfs' calls name it. In the machine it may be another: what runs there by itself, as
``debug sh`` does, must name no device."""
WINDOWS_MOUNT = "/windows"
BOOT_MOUNT = "/boot"

_KVM_API_VERSION = 12
_KVM_GET_API_VERSION, _KVM_CREATE_VM = 0xAE00, 0xAE01
_NTFS_3G_HIBERNATED = 14


@dataclass(slots=True)
class Guest:
    """A launched machine with the disk attached as `DEVICE`; nothing is mounted yet."""

    handle: Any
    table: PartitionTable
    writable: bool

    def read_partition(self, partition: Partition, offset_bytes: int, length_bytes: int) -> bytes:
        """Return bytes of a partition, fewer where it ends; damaged volumes name any offset."""
        length = min(length_bytes, partition.length_bytes - offset_bytes)
        if offset_bytes < 0 or length <= 0:
            return b""
        return bytes(self.handle.pread_device(DEVICE, length, partition.first_byte + offset_bytes))

    def write(self, offset_bytes: int, data: bytes, device: str = DEVICE) -> None:
        """Write bytes of the disk itself or of a partition's device, at most 1 MiB.

        Raises:
            EngineFailed: not all of it was taken.
        """
        written = int(self.handle.pwrite_device(device, data, offset_bytes))
        if written != len(data):
            raise EngineFailed(
                f"Cannot write {device} at byte {offset_bytes}: {written} of {len(data)} bytes "
                "were taken."
            )

    def reread_table(self) -> None:
        """Read the partition table again after it was written."""
        self.table = _read_table(self.handle)

    def kind_of_content(self, device: str) -> str:
        """Return blkid's word for what a device holds, "" when it knows none."""
        try:
            return str(self.handle.vfs_type(device))
        except RuntimeError:
            return ""

    def mount(self, partition: Partition, mount: str) -> None:
        """Mount one partition; read-only until `mount_writable`."""
        with suppress(RuntimeError):  # it exists from an earlier try on another partition
            self.handle.mkmountpoint(mount)
        self.handle.mount_ro(self.device_of(partition), mount)

    def unmount(self, mount: str) -> None:
        """Unmount."""
        self.handle.umount(mount)

    def ntfs_problem(self, partition: Partition) -> str:
        """Return ``hibernated``, ``dirty`` or "": what NTFS' driver says before it would write.

        It looks at the hibernation file and the journal and stops before it changes anything.
        """
        code = int(self.handle.ntfs_3g_probe(True, self.device_of(partition)))  # noqa: FBT003
        if code == _NTFS_3G_HIBERNATED:
            return "hibernated"
        return "dirty" if code else ""

    def mount_writable(self, partition: Partition, mount: str) -> None:
        """Mount for writing; where the driver falls back to reading, the first write raises."""
        self.handle.mount_options("", self.device_of(partition), mount)

    @staticmethod
    def device_of(partition: Partition) -> str:
        """Return the partition's device."""
        return f"{DEVICE}{partition.number}"


@contextmanager
def open_guest(path: str, *, writable: bool) -> Iterator[Guest]:
    """Launch the machine; on the way out everything is flushed and the machine is gone.

    Raises:
        MissingTool: no guestfs module here.
        EngineFailed: the machine does not start, the disk cannot be opened, or flushing failed.
    """
    handle = _launch(path, writable=writable)
    try:
        yield Guest(handle, _read_table(handle), writable)
        handle.umount_all()
        handle.shutdown()  # raises when a write did not reach the disk
    except RuntimeError as error:
        raise EngineFailed(f"Cannot work on disk '{path}': {error}.") from error
    finally:
        handle.close()


def _read_table(handle: Any) -> PartitionTable:
    disk_bytes = int(handle.blockdev_getsize64(DEVICE))
    head = bytes(handle.pread_device(DEVICE, min(HEAD_BYTES, disk_bytes), 0))
    return parse_partition_table(head, disk_bytes)


def kvm_works() -> bool:
    """Say whether this machine can really run a virtual machine; the device alone says nothing."""
    try:
        device = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if fcntl.ioctl(device, _KVM_GET_API_VERSION, 0) != _KVM_API_VERSION:
            return False
        os.close(fcntl.ioctl(device, _KVM_CREATE_VM, 0))
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(device)


def _launch(path: str, *, writable: bool) -> Any:
    """Launch with KVM where it works; where it only seems to work, again under emulation."""
    os.environ.setdefault("LIBGUESTFS_BACKEND", "direct")
    chosen = os.environ.get("LIBGUESTFS_BACKEND_SETTINGS")
    if chosen is None and not kvm_works():
        chosen = "force_tcg"
    attempts = [chosen] if chosen else ["", "force_tcg"]
    failure = ""
    for settings in attempts:
        handle = _handle(settings)
        try:
            _add_disk(handle, path, writable=writable)
            handle.launch()
        except RuntimeError as error:
            handle.close()
            failure = str(error)
        else:
            return handle
    raise EngineFailed(
        f"Cannot start libguestfs on '{path}': {failure}.",
        hint="Run `libguestfs-test-tool` on this machine; it names what is missing.",
    )


def _handle(settings: str) -> Any:
    try:
        guestfs: Any = importlib.import_module("guestfs")  # belongs to the distribution's Python
    except ImportError as error:
        raise MissingTool(
            "Cannot start libguestfs: this Python has no module guestfs.",
            hint="Install python3-guestfs and run the engine with /usr/bin/python3.",
        ) from error
    handle = guestfs.GuestFS(python_return_dict=True)
    handle.set_backend("direct")
    handle.set_backend_settings([item for item in settings.split(":") if item])
    return handle


def _add_disk(handle: Any, path: str, *, writable: bool) -> None:
    if path.startswith("nbd+unix://"):
        parts = urlsplit(path)
        socket = parse_qs(parts.query).get("socket", [""])[0]
        export = parts.path.removeprefix("/")
        handle.add_drive_opts(
            export, readonly=not writable, format="raw", protocol="nbd", server=[f"unix:{socket}"]
        )
        return
    # The format is told by name, never probed: a guest could write a header into its own disk.
    form = "qcow2" if Path(path).suffix == ".qcow2" else "raw"
    handle.add_drive_opts(path, readonly=not writable, format=form)
