"""What a store holds of one vDisk: its files, its manifest, and the version to read."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from imageport.citrix.manifest import (
    LIMIT_BYTES,
    Access,
    VersionEntry,
    VersionManifest,
    parse_manifest,
)
from imageport.citrix.names import StoreFile, file_of, same_name, versioned
from imageport.errors import FileLocked, FileMissing, UnsupportedDisk
from imageport.storage.folder import Folder

_MERGE_HINT = (
    "Merge the versions to a new base in the Provisioning console (or Merge-PvsDisk -NewBase) and "
    "promote it to Production; then start again."
)


@dataclass(frozen=True, slots=True)
class ChosenVersion:
    """The version to read; ``access`` is None when no manifest tells."""

    file_name: str
    number: int
    access: Access | None
    lock_name: str
    """The ``.lok`` file beside it, empty when there is none."""


@dataclass(frozen=True, slots=True)
class VdiskFiles:
    """The files of one vDisk as the store lists them."""

    location: str
    vdisk: str
    files: tuple[StoreFile, ...]
    manifest_name: str
    """As it is spelled in the store; empty when there is none."""
    manifest: VersionManifest | None

    @classmethod
    def look_up(cls, folder: Folder, vdisk: str) -> VdiskFiles:
        """List the store once and read the vDisk's manifest, if it has one."""
        entries = [entry for entry in folder.list() if not entry.is_folder]
        files = [file_of(vdisk, entry.name) for entry in entries]
        found = [entry.name for entry in entries if same_name(entry.name, f"{vdisk}.xml")]
        manifest = None
        if found:
            # One byte more than allowed, so that the parser tells the size it found.
            data = folder.read_bytes(found[0], limit_bytes=16 * LIMIT_BYTES)
            manifest = parse_manifest(data, f"{folder.location}/{found[0]}")
        return cls(
            folder.location,
            vdisk,
            tuple(file for file in files if file is not None),
            found[0] if found else "",
            manifest,
        )

    @property
    def disks(self) -> list[StoreFile]:
        """Return the files with blocks, ascending by version."""
        return sorted((file for file in self.files if file.is_disk), key=lambda file: file.version)

    @property
    def highest_version(self) -> int:
        """Return the highest number any file or the manifest uses, -1 when there is nothing."""
        listed = [entry.number for entry in self.manifest.versions] if self.manifest else []
        return max([file.version for file in self.files] + listed, default=-1)

    def choose(self, *, accept_lock: bool) -> ChosenVersion:
        """Return the version that Production devices get.

        Raises:
            FileMissing: the store has no such vDisk.
            UnsupportedDisk: it is a chain of differences, or versions without a manifest.
            FileLocked: no version is in Production and ``accept_lock`` is not set.
        """
        if not self.disks:
            raise FileMissing(f"Cannot find vDisk '{self.vdisk}' in '{self.location}'.")
        if self.manifest is None:
            return self._choose_unlisted()
        entry = self._production(self.manifest, accept_lock=accept_lock)
        return self._chosen(entry)

    def choose_listed(self, file_name: str) -> ChosenVersion | None:
        """Return the version whose file has this name, if the manifest lists it."""
        for entry in self.manifest.versions if self.manifest else ():
            if same_name(entry.disk_file_name, file_name):
                return self._chosen(entry)
        return None

    def _choose_unlisted(self) -> ChosenVersion:
        if len(self.disks) > 1 or self.disks[0].version or self.disks[0].is_difference:
            raise UnsupportedDisk(
                f"Cannot read vDisk '{self.location}/{self.vdisk}': it has versions "
                f"({self._named(self.disks)}) and no manifest '{self.vdisk}.xml'.",
                hint=_MERGE_HINT,
                versions=[file.name for file in self.disks],
            )
        return self._with_lock(self.disks[0].name, 0, None)

    def _production(self, manifest: VersionManifest, *, accept_lock: bool) -> VersionEntry:
        now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        overrides = [entry for entry in manifest.versions if entry.access is Access.OVERRIDE]
        ready = [
            entry
            for entry in manifest.versions
            if entry.access is Access.PRODUCTION and entry.scheduled_date.replace("T", " ") <= now
        ]
        if overrides or ready:
            return (overrides or ready)[-1]
        if accept_lock:
            return manifest.versions[-1]
        raise FileLocked(
            f"Cannot read vDisk '{self.location}/{self.vdisk}': its manifest has no version in "
            "Production."
        )

    def _chosen(self, entry: VersionEntry) -> ChosenVersion:
        file = next((f for f in self.disks if same_name(f.name, entry.disk_file_name)), None)
        if file is None:
            raise FileMissing(
                f"Cannot find '{self.location}/{entry.disk_file_name}': the manifest "
                f"'{self.manifest_name}' lists it as version {entry.number}."
            )
        newer = [f for f in self.disks if f.is_difference and f.version > file.version]
        if file.is_difference or newer:
            chain = [f for f in self.disks if f.is_difference or f.version <= entry.number]
            raise UnsupportedDisk(
                f"Cannot read vDisk '{self.location}/{self.vdisk}': its versions "
                f"({self._named(chain)}) build on each other.",
                hint=_MERGE_HINT,
                versions=[f.name for f in chain],
            )
        return self._with_lock(file.name, file.version, entry.access)

    def _with_lock(self, file_name: str, number: int, access: Access | None) -> ChosenVersion:
        expected = versioned(self.vdisk, number, "lok")
        lock = next((f.name for f in self.files if same_name(f.name, expected)), "")
        return ChosenVersion(file_name, number, access, lock)

    def _named(self, files: list[StoreFile]) -> str:
        return ", ".join(file.name for file in files)
