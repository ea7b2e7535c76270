# References: [MS-CFB] 2.2 Compound File Header, 2.3 FAT, 2.6 Compound File Directory Sectors.
r"""What ``msiexec /i`` of the Azure VM agent leaves behind: two services and C:\\WindowsAzure.

Only the sample's look-alike is played: what a real installer does is in itself, not in any table.
"""

from __future__ import annotations

import struct
from uuid import UUID

from imageport.sandbox.guest_player.registry import Hive, number, string
from imageport.sandbox.guest_player.volume import WindowsVolume

NO_PACKAGE, BAD_PACKAGE = "1619", "1620"
"""ERROR_INSTALL_PACKAGE_OPEN_FAILED and ERROR_INSTALL_PACKAGE_INVALID (winerror.h)."""
_SIGNATURE = bytes.fromhex("d0cf11e0a1b11ae1")
_INSTALLER = UUID("000c1084-0000-0000-c000-000000000046")
"""CLSID of an installation package's root storage."""
_STREAM = "SampleVmAgent"
_END = 0xFFFFFFFE
_ENTRY_BYTES, _ROOT, _FILE = 128, 5, 2
_FOLDER = "WindowsAzure"
_SERVICES = (
    ("RdAgent", "WaAppAgent.exe"),
    ("WindowsAzureGuestAgent", "WindowsAzureGuestAgent.exe"),
)


class PackageError(ValueError):
    """The package cannot be installed; ``code`` is what msiexec returns."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def install_vm_agent(volume: WindowsVolume, system: Hive, control_set: str, path: str) -> str:
    """Install the package; returns what was installed.

    Raises:
        PackageError: no such file, or it is none of the sample's packages.
    """
    data = volume.read(path)
    if data is None:
        raise PackageError(NO_PACKAGE, f"no file {path}")
    version = package_version(data)
    volume.make_folder(f"{_FOLDER}\\Logs")
    for service, program in _SERVICES:
        target = f"{_FOLDER}\\Packages\\{program}"
        volume.write(target, f"MZ {service} {version}".encode())
        values = {
            "Type": number(0x10),
            "Start": number(2),
            "ErrorControl": number(1),
            "ImagePath": string(f"C:\\{target}", 2),
            "DisplayName": string(service),
            "ObjectName": string("LocalSystem"),
        }
        system.set(f"{control_set}\\Services\\{service}", values)
    return f"Azure VM agent {version}"


def package_version(data: bytes) -> str:
    """Return the version that the sample's package states; `PackageError` when it is none."""
    try:
        text = streams(data).get(_STREAM, b"").rstrip(b"\0").decode("ascii")
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise PackageError(BAD_PACKAGE, f"broken compound file: {error}") from error
    product, _, version = text.partition(" ")
    if product != "WindowsAzureVmAgent" or not version:
        raise PackageError(BAD_PACKAGE, f"no stream {_STREAM} with product and version")
    return version


def streams(data: bytes) -> dict[str, bytes]:
    """Return the streams of a package by name; they are all too long for the mini stream."""
    if data[:8] != _SIGNATURE:
        raise PackageError(BAD_PACKAGE, "no compound file")
    sector_bytes = 1 << struct.unpack_from("<H", data, 30)[0]
    (directory,) = struct.unpack_from("<I", data, 48)
    (table,) = struct.unpack_from("<I", data, 76)
    fat = struct.unpack_from(f"<{sector_bytes // 4}I", data, (table + 1) * sector_bytes)
    entries = _chain(data, fat, directory, sector_bytes)
    found: dict[str, bytes] = {}
    for at in range(0, len(entries), _ENTRY_BYTES):
        entry = entries[at : at + _ENTRY_BYTES]
        name_bytes, kind = struct.unpack_from("<HB", entry, 64)
        start, size = struct.unpack_from("<IQ", entry, 116)
        if kind == _ROOT and UUID(bytes_le=entry[80:96]) != _INSTALLER:
            raise PackageError(BAD_PACKAGE, "a compound file, but no installation package")
        if kind == _FILE:
            name = entry[: max(name_bytes - 2, 0)].decode("utf-16-le", "replace")
            found[name] = _chain(data, fat, start, sector_bytes)[:size]
    return found


def _chain(data: bytes, fat: tuple[int, ...], sector: int, sector_bytes: int) -> bytes:
    pieces: list[bytes] = []
    while sector != _END:
        if len(pieces) * sector_bytes > len(data):
            raise PackageError(BAD_PACKAGE, "a chain of sectors that leads to itself")
        at = (sector + 1) * sector_bytes
        pieces.append(data[at : at + sector_bytes])
        sector = fat[sector]
    return b"".join(pieces)
