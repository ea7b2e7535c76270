"""What a store holds of one vDisk: its files, its manifest, and the version to read."""

from __future__ import annotations

import time
from dataclasses import dataclass

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


@dataclass(frozen=True, slots=True)
class ChosenVersion:
    """The version to read; ``access`` is None when no manifest tells."""

    file_name: str
    number: int
    access: Access | None
    lock_name: str
    """The ``.lok`` file beside it, empty when there is none."""
    chain_locked: bool
    """Whether any version of the vDisk has a lock: devices may stream from a lower one."""
    chain_names: frozenset[str]
    """Case-folded names of the files that its chain may consist of."""


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
            # More than is allowed, so that the parser tells the size it found.
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
            UnsupportedDisk: versions without a manifest, or files of both formats.
            FileLocked: no version is in Production and ``accept_lock`` is not set.
            BadDisk: the manifest, also for a scheduled date that is none.
        """
        if not self.disks:
            raise FileMissing(f"Cannot find vDisk '{self.vdisk}' in '{self.location}'.")
        self._check_one_format()
        if self.manifest is None:
            return self._choose_unlisted()
        entry = self._production(self.manifest, accept_lock=accept_lock)
        file = self._file(entry.disk_file_name)
        if file is None:
            raise FileMissing(
                f"Cannot find '{self.location}/{entry.disk_file_name}': the manifest "
                f"'{self.manifest_name}' lists it as version {entry.number}."
            )
        return self._chosen(file, entry)

    def choose_file(self, file_name: str, *, accept_lock: bool) -> ChosenVersion | None:
        """Return the version that has a file of this name; None when there is no such file.

        Raises:
            UnsupportedDisk: The vDisk has a manifest that does not list the file, or files of
                both formats.
            FileLocked: A merge writes it, and ``accept_lock`` is not set.
        """
        self._check_one_format()
        file = self._file(file_name)
        if file is None:
            return None
        listed = self.manifest.versions if self.manifest else ()
        entry = next((e for e in listed if same_name(e.disk_file_name, file_name)), None)
        if self.manifest is not None and entry is None:
            raise UnsupportedDisk(
                f"Cannot read '{self.location}/{file.name}': the manifest '{self.manifest_name}' "
                "does not list it.",
                hint="Export the manifest again in the Provisioning console, or name a version "
                "that it lists.",
            )
        if entry is not None and entry.access.is_merging and not accept_lock:
            raise FileLocked(
                f"Cannot read '{self.location}/{file.name}': its manifest says that a merge "
                "writes it.",
                hint="Wait until the merge has ended and export the manifest again in the "
                "Provisioning console; then start again.",
            )
        return self._chosen(file, entry)

    def _check_one_format(self) -> None:
        if len({file.is_vhd for file in self.disks}) > 1:
            raise UnsupportedDisk(
                f"Cannot read vDisk '{self.location}/{self.vdisk}': found VHD and VHDX files of "
                f"that name ({self._named(self.disks)}), needed one format, as PVS does.",
                hint="Move the files that do not belong to the vDisk out of the store.",
                versions=[file.name for file in self.disks],
            )

    def _choose_unlisted(self) -> ChosenVersion:
        if len(self.disks) > 1 or self.disks[0].version or self.disks[0].is_difference:
            newest = self.disks[-1].name
            raise UnsupportedDisk(
                f"Cannot read vDisk '{self.location}/{self.vdisk}': it has versions "
                f"({self._named(self.disks)}) and no manifest '{self.vdisk}.xml' that tells which "
                "one is in Production.",
                hint="Export the manifest in the Provisioning console; or, if you know the "
                f"version, name its file: '{newest}'.",
                versions=[file.name for file in self.disks],
            )
        return self._chosen(self.disks[0], None)

    def _production(self, manifest: VersionManifest, *, accept_lock: bool) -> VersionEntry:
        newest_first = manifest.versions[::-1]
        overrides = [entry for entry in newest_first if entry.access is Access.OVERRIDE]
        if overrides:
            return overrides[0]
        now, source = int(time.time()), f"{self.location}/{self.manifest_name}"
        for entry in newest_first:
            if entry.access is Access.PRODUCTION and entry.is_due(now, source):
                return entry
        if accept_lock:
            # What a merge writes may be half a disk: only where there is nothing else.
            return min(newest_first, key=lambda entry: entry.access.is_merging)
        raise FileLocked(
            f"Cannot read vDisk '{self.location}/{self.vdisk}': its manifest has no version in "
            "Production."
        )

    def _file(self, name: str) -> StoreFile | None:
        return next((file for file in self.disks if same_name(file.name, name)), None)

    def _chosen(self, file: StoreFile, entry: VersionEntry | None) -> ChosenVersion:
        expected = versioned(self.vdisk, file.version, "lok")
        locks = [one.name for one in self.files if one.is_lock]
        listed = self.manifest.versions if self.manifest else ()
        names = [e.disk_file_name for e in listed] or [one.name for one in self.disks]
        return ChosenVersion(
            file.name,
            file.version,
            entry.access if entry else None,
            next((name for name in locks if same_name(name, expected)), ""),
            bool(locks),
            frozenset(name.casefold() for name in names),
        )

    def _named(self, files: list[StoreFile]) -> str:
        return ", ".join(file.name for file in files)
