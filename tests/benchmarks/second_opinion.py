"""What two ways of preparing made of one guest, asked of the disks by programs of neither.

hivexregedit reads the hives, ntfssecaudit the descriptors, ntfs-3g the files.
"""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from imageport.sandbox.guest_player.descriptors import EVERYBODY, audited
from imageport.sandbox.guest_player.disk import DATA_TYPE, extract, read_table
from imageport.sandbox.guest_player.registry import Hive, dword, texts
from imageport.sandbox.guest_player.volume import WindowsVolume, mounted

CONFIG = "Windows\\System32\\config"
INBOX_STORAGE = ("stornvme", "storahci", "intelide", "atapi", "vmbus", "storvsc", "storflt")
BOOT_DRIVERS = ("vioscsi", "viostor")
SOURCE_SERVICES = ("VMTools", "VGAuthService", "vmci", "vsock", "vmrawdsk", "vmhgfs", "VMMemCtl")
DISK_IDS = ("VEN_1AF4&DEV_1004", "VEN_1AF4&DEV_1001")
"""Virtio SCSI, which Google has, and virtio block, which virt-v2v prefers."""
NIC_IDS = ("VEN_1AF4&DEV_1000",)
_DISABLED = 4


@dataclass(frozen=True, slots=True)
class Prepared:
    """One disk, read: files by digest, hives as copies, and what may be changed by whom."""

    files: dict[str, str]
    hives: dict[str, Path]
    descriptors: dict[str, bool]
    """Of added files: may Users, or everybody, change it?"""
    control_sets: tuple[str, ...]

    def system(self) -> Hive:
        return Hive(self.hives["SYSTEM"])


def read_prepared(disk: Path, work: Path, before: Prepared | None) -> Prepared:
    """Read a raw disk; ``before`` tells which files are new."""
    work.mkdir()
    table = read_table(disk)
    assert table is not None
    part = next(part for part in table.partitions if part.kind == DATA_TYPE)
    image = work / "windows.ntfs"
    extract(disk, part, image)
    hives: dict[str, Path] = {}
    with mounted(image) as volume:
        files = dict(_digests(volume))
        for name in ("SYSTEM", "SOFTWARE", "DRIVERS"):
            data = volume.read(f"{CONFIG}\\{name}")
            if data is not None:
                hives[name] = work / name
                hives[name].write_bytes(data)
    known = before.files if before else files
    added = [path for path in files if path not in known]
    found = {path: _open_to_users(image, path) for path in added}
    image.unlink()
    sets = tuple(name for name in Hive(hives["SYSTEM"]).children("") if "controlset" in name)
    return Prepared(files, hives, found, sets)


def _digests(volume: WindowsVolume) -> Iterator[tuple[str, str]]:
    root = volume.find("")
    assert root is not None
    for path in sorted(root.rglob("*")):
        if path.is_file():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield path.relative_to(root).as_posix(), digest


def _open_to_users(image: Path, path: str) -> bool:
    entries = audited(image, path)
    return entries is None or any(item.may_write and item.who in EVERYBODY for item in entries)


def overrides_left(guest: Prepared) -> str:
    system = guest.system()
    found = [
        f"{name}\\{driver}"
        for name in guest.control_sets
        for driver in INBOX_STORAGE
        if system.key(f"{name}\\Services\\{driver}\\StartOverride") is not None
    ]
    return str(len(found))


def sets_with_boot_driver(guest: Prepared) -> str:
    system = guest.system()
    sets = [
        name
        for name in guest.control_sets
        if any(
            dword(system.key(f"{name}\\Services\\{driver}"), "start") == 0
            for driver in BOOT_DRIVERS
        )
    ]
    return f"{len(sets)} of {len(guest.control_sets)}"


def package_bound_to(*devices: str) -> Callable[[Prepared], str]:
    """Return the question which package the driver databases bind to one of some PCI devices."""
    wanted = tuple(f"driverdatabase\\deviceids\\pci\\{device}".lower() for device in devices)

    def answer(guest: Prepared) -> str:
        for name in ("SYSTEM", "DRIVERS"):
            hive = Hive(guest.hives[name])
            known = hive.subtree("DriverDatabase\\DeviceIds\\PCI")
            named = [values for key, values in known.items() if key.startswith(wanted)]
            for inf in (inf for values in named for inf in values if inf):
                place = hive.key(f"DriverDatabase\\DriverInfFiles\\{inf}")
                package = next(iter(texts(place, "active") or texts(place, "")), "?")
                store = f"windows/system32/driverstore/filerepository/{package}/".lower()
                kept = any(path.lower().startswith(store) for path in guest.files)
                return "whole package" if kept else f"stub ({inf})"
        return "nothing"

    return answer


def source_services_starting(guest: Prepared) -> str:
    system = guest.system()
    found = {
        service
        for name in guest.control_sets
        for service in SOURCE_SERVICES
        if 0 <= dword(system.key(f"{name}\\Services\\{service}"), "start") < _DISABLED - 1
    }
    return str(len(found))


def source_files(guest: Prepared) -> str:
    return str(sum("vmware" in path.lower() or "/vm" in path.lower() for path in guest.files))


def winsock_entries(guest: Prepared) -> str:
    """Catalogue entries that name VMware's library; their record is ASCII."""
    system = guest.system()
    count = 0
    for name in guest.control_sets:
        place = f"{name}\\Services\\WinSock2\\Parameters\\Protocol_Catalog9"
        for values in system.subtree(place).values():
            count += b"vsocklib" in values.get("packedcatalogitem", (0, b""))[1]
    return str(count)


def providers(guest: Prepared) -> str:
    system = guest.system()
    found = [
        name
        for name in guest.control_sets
        for order in ("Order", "HwOrder")
        if "vmhgfs"
        in "".join(texts(system.key(f"{name}\\Control\\NetworkProvider\\{order}"), "providerorder"))
    ]
    return str(len(found))


def open_files(guest: Prepared) -> str:
    return f"{sum(guest.descriptors.values())} of {len(guest.descriptors)}"


QUESTIONS: tuple[tuple[str, Callable[[Prepared], str]], ...] = (
    ("StartOverride keys left under in-box storage drivers", overrides_left),
    ("control sets in which a virtio disk driver starts at boot", sets_with_boot_driver),
    ("driver database: what serves a virtio disk controller", package_bound_to(*DISK_IDS)),
    ("driver database: what serves the virtio network adapter", package_bound_to(*NIC_IDS)),
    ("services of VMware Tools that start by themselves", source_services_starting),
    ("Winsock entries of VMware", winsock_entries),
    ("network provider lists that name VMware", providers),
    ("files of VMware", source_files),
    ("added files that Users may change", open_files),
)
"""What the table in the docs tells, in its order."""


def sequence_numbers(hive: Path) -> str:
    data = hive.read_bytes()[:12]
    first, second = int.from_bytes(data[4:8], "little"), int.from_bytes(data[8:12], "little")
    return f"{first}/{second}"


def version_of(program: str) -> str:
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return done.stdout.strip()
