"""A small sample made ready for its one boot by hand, and ways to break it."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from imageport.sandbox.guest_player.disk import (
    DATA_TYPE,
    Partition,
    extract,
    read_table,
    write_back,
)
from imageport.sandbox.guest_player.registry import Hive, number, string
from imageport.sandbox.guest_player.volume import WindowsVolume, mounted

FOLDER = "Windows\\ImageportFirstBoot"
SETS = ("ControlSet001", "ControlSet002")
PLAN = (
    "imageport-firstboot 1",
    "deadline 600",
    "attempts 2",
    "01 required wait-devices 30",
    "02 required add-driver ena\\ena.inf",
    "03 required restore-service BrokerAgent 2",
    "04 required restore-value Services\\Netlogon\\Parameters DisablePasswordChange absent",
    "05 required remove-service ImageportFirstBoot",
)
_IMAGE = "%SystemRoot%\\System32\\cmd.exe /d /c %SystemRoot%\\ImageportFirstBoot\\firstboot.cmd"

Edit = Callable[[WindowsVolume], None]


def edit_windows(disk: Path, work: Path, edit: Edit) -> Path:
    """Change the Windows volume of a raw disk."""
    part = _windows_part(disk)
    image = work / "edited.ntfs"
    extract(disk, part, image)
    with mounted(image) as volume:
        edit(volume)
    write_back(image, disk, part)
    image.unlink()
    return disk


@contextmanager
def windows_of(disk: Path, work: Path) -> Iterator[tuple[WindowsVolume, Path]]:
    """The Windows volume of a raw disk as it is, mounted, and the file that holds it."""
    image = work / "after.ntfs"
    extract(disk, _windows_part(disk), image)
    with mounted(image) as volume:
        yield volume, image


def _windows_part(disk: Path) -> Partition:
    table = read_table(disk)
    assert table is not None
    (part,) = [one for one in table.partitions if one.kind == DATA_TYPE]
    return part


def set_values(key: str, **values: tuple[int, bytes]) -> Edit:
    """An edit that sets values of one key of SYSTEM."""

    def edit(volume: WindowsVolume) -> None:
        system = system_hive(volume)
        system.set(key, values)
        system.flush()

    return edit


def delete_key(key: str, hive: str = "SYSTEM") -> Edit:
    """An edit that deletes a key with all below."""

    def edit(volume: WindowsVolume) -> None:
        changed = hive_of(volume, hive)
        changed.delete(key)
        changed.flush()

    return edit


def remove_file(path: str) -> Edit:
    """An edit that removes a file."""

    def edit(volume: WindowsVolume) -> None:
        found = volume.find(path)
        assert found is not None
        found.unlink()

    return edit


def hive_of(volume: WindowsVolume, name: str) -> Hive:
    found = volume.find(f"Windows\\System32\\config\\{name}")
    assert found is not None
    return Hive(found)


def system_hive(volume: WindowsVolume) -> Hive:
    return hive_of(volume, "SYSTEM")


def administrators_only(*more: tuple[int, str]) -> bytes:
    """A descriptor for SYSTEM and Administrators; ``more`` adds (rights, SID)."""
    rights = [(0x1F01FF, "S-1-5-18"), (0x1F01FF, "S-1-5-32-544"), *more]
    entries = b"".join(
        struct.pack("<BBHI", 0, 3, 8 + len(_sid(who)), mask) + _sid(who) for mask, who in rights
    )
    acl = struct.pack("<BBHHH", 2, 0, 8 + len(entries), len(rights), 0) + entries
    owner = _sid("S-1-5-32-544")
    head = struct.pack("<BBHIIII", 1, 0, 0x9004, 20 + len(acl), 20 + len(acl), 0, 20)
    return head + acl + owner


def _sid(text: str) -> bytes:
    _, revision, authority, *parts = text.split("-")
    head = bytes([int(revision), len(parts)]) + int(authority).to_bytes(6, "big")
    return head + b"".join(struct.pack("<I", int(part)) for part in parts)


def set_access(volume: WindowsVolume, path: str, descriptor: bytes) -> None:
    found = volume.find(path)
    assert found is not None
    os.setxattr(found, "system.ntfs_acl", descriptor)


def write_plan(volume: WindowsVolume, lines: tuple[str, ...]) -> None:
    volume.write(f"{FOLDER}\\plan.txt", "".join(line + "\r\n" for line in lines).encode())
    script = ["@echo off", *(f"call :step {line}" for line in lines[3:])]
    volume.write(f"{FOLDER}\\firstboot.cmd", "".join(line + "\r\n" for line in script).encode())


def make_ready(volume: WindowsVolume, package: Path) -> None:
    """What an engine must have done before the one boot."""
    system = system_hive(volume)
    for control_set in SETS:
        for driver in ("vmbus", "storvsc", "storflt", "stornvme", "storahci"):
            system.delete(f"{control_set}\\Services\\{driver}\\StartOverride")
        system.set(f"{control_set}\\Services\\BrokerAgent", {"Start": number(4)})
        system.set(
            f"{control_set}\\Services\\Netlogon\\Parameters", {"DisablePasswordChange": number(1)}
        )
        service = {
            "Type": number(0x10),
            "Start": number(2),
            "ErrorControl": number(1),
            "ObjectName": string("LocalSystem"),
            "ImagePath": string(_IMAGE, 2),
        }
        system.set(f"{control_set}\\Services\\ImageportFirstBoot", service)
    system.flush()
    volume.make_folder(FOLDER)
    set_access(volume, FOLDER, administrators_only())
    for file in package.iterdir():
        volume.write(f"{FOLDER}\\drivers\\ena\\{file.name}", file.read_bytes())
    write_plan(volume, PLAN)
