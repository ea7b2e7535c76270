"""The sample's Windows files as a tar stream, which both ways of writing NTFS understand."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from imageport.sandbox.sample.driver_database import STORE, installed_packages, package_files
from imageport.sandbox.sample.guest_kind import SYSTEM_FACTS, GuestKind
from imageport.sandbox.sample.portable_executable import minimal_pe
from imageport.sandbox.sample.recipe import MIB, BulkData

FILE_TIME_SECONDS = 1_704_067_200
"""2024-01-01T00:00:00Z on every file, so that two builds list alike."""
_TABLES = Path(__file__).parent / "files"
LOADER = "Windows/Boot/EFI/bootmgfw.efi"
"""What Windows copies to a boot partition for UEFI."""
_SEED = 20240101
_LINES = (
    "2024-01-01 08:00:00, Info                  CBS    Session: 31070_4120 initialized.",
    "2024-01-01 08:00:01, Info                  CSI    00000004 Performing 1 operations:",
    "2024-01-01 08:00:02, Info                  CBS    Exec: Processing complete. Session: 31070",
    "2024-01-01 08:00:03, Error                 CBS    Failed to open package, retrying.",
    "2024-01-01 08:00:04, Info                  DPX    Started DPX phase: Resume and Download Job",
)


@dataclass(frozen=True, slots=True)
class GuestFile:
    """One file (or folder, when ``data`` is None) below the root of the volume."""

    path: str
    data: bytes | None


def guest_files(kind: GuestKind | None = None, loader: bytes | None = None) -> Iterator[GuestFile]:
    """Yield the files of a kind of guest, hives and bulk data apart.

    Args:
        kind: what kind of guest, the sample vDisk by default.
        loader: a program that firmware can start, in place of one that only looks like it.
    """
    kind = kind or GuestKind()
    for name in ("windows", f"platforms/{kind.platform}", kind.provisioning):
        for file in _listed_files(name, SYSTEM_FACTS[kind.system].file_build):
            is_loader = loader is not None and file.path == LOADER
            yield GuestFile(file.path, loader) if is_loader else file
    for table in (kind.platform, kind.provisioning):
        yield from _package_files(table)


def _listed_files(table: str, build: str) -> Iterator[GuestFile]:
    """Yield what a text table names: folders, short texts, and programs with their version."""
    path = _TABLES / f"{table}.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        if "|" in line:
            path_, version, company = (part.strip() for part in line.split("|"))
            name = path_.rpartition("/")[2]
            version = version.replace("{{build}}", build)
            yield GuestFile(path_, minimal_pe(name, version, company=company))
        elif line.endswith("/"):
            yield GuestFile(line.rstrip("/"), None)
        else:
            path_, _, text = line.partition(":")
            yield GuestFile(path_, (text.strip() + "\r\n").encode())


def _package_files(table: str) -> Iterator[GuestFile]:
    """Yield what driver packages left: INFs, catalogues, and drivers in both their places."""
    packages = installed_packages(table)
    for path, text in package_files(packages):
        yield GuestFile(path, (text + "\r\n").encode())
    for package in packages:
        driver = minimal_pe(package.driver_file, package.version, company=package.provider)
        yield GuestFile(f"{STORE}/{package.folder}/{package.driver_file}", driver)
        yield GuestFile(f"Windows/System32/drivers/{package.driver_file}", driver)


def bulk_files(amounts: BulkData) -> Iterator[GuestFile]:
    """Yield the mass of the image: incompressible, compressible, and written zeros."""
    # First, so that it lies in one piece and fills whole blocks of the VHDX.
    yield GuestFile("Users/Public/preallocated.bin", bytes(amounts.zeros * MIB))
    rng = random.Random(_SEED)  # noqa: S311 - reproducible content, not a secret
    for number in range(amounts.random // 8):
        name = f"Program Files/Microsoft Office/root/Office16/media{number:03d}.cab"
        yield GuestFile(name, rng.randbytes(8 * MIB))
    lines = [line.encode() + b"\r\n" for line in _LINES]
    for number in range(amounts.text // 8):
        page = b"".join(rng.choices(lines, k=12_500))
        data = (page * (8 * MIB // len(page) + 1))[: 8 * MIB - 8]
        name = f"Windows/Logs/CBS/CbsPersist_{number:03d}.log"
        yield GuestFile(name, data + f"{number:08d}".encode())


def write_tar(path: Path, files: Iterator[GuestFile]) -> None:
    """Write the files, with the folders that lead to them, as one tar."""
    folders: set[str] = set()
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for file in files:
            parents = [str(parent) for parent in Path(file.path).parents][-2::-1]
            wanted = [*parents, file.path] if file.data is None else parents
            for folder in wanted:
                if folder not in folders:
                    folders.add(folder)
                    archive.addfile(_entry(folder, tarfile.DIRTYPE, 0))
            if file.data is not None:
                entry = _entry(file.path, tarfile.REGTYPE, len(file.data))
                archive.addfile(entry, io.BytesIO(file.data))


def _entry(path: str, kind: bytes, size: int) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(path)
    entry.type = kind
    entry.size = size
    entry.mode = 0o755 if kind == tarfile.DIRTYPE else 0o644
    entry.mtime = FILE_TIME_SECONDS
    return entry
