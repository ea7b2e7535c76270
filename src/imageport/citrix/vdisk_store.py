"""A PVS vDisk store: reading a vDisk under its lock rules, publishing one as PVS wants it.

Rules that hold whatever happens: the store's files are never written in place, a name that exists
is never replaced, and a file gets its name only when it is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum

from imageport.citrix.manifest import (
    Access,
    VersionEntry,
    VersionManifest,
    VersionType,
    date_text,
    render_manifest,
)
from imageport.citrix.names import check_vdisk_name, disk_named, same_name, versioned
from imageport.citrix.vdisk_files import ChosenVersion, VdiskFiles
from imageport.errors import (
    FileLocked,
    FileMissing,
    InputError,
    NameTaken,
    UnsupportedDisk,
)
from imageport.formats.linked_disk import LinkedDisk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.storage.byte_file import ByteFile
from imageport.storage.folder import Folder

_SECOND_NS = 1_000_000_000
_PART = re.compile(r"(?P<file>.+\.vhdx)\.(?P<token>[0-9a-f]{16})\.part", re.IGNORECASE)


class IfExists(StrEnum):
    """What publishing does when the vDisk's name exists."""

    NEW_VERSION = "new-version"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class OpenVdisk:
    """The chosen version of a vDisk, open for reading; the caller closes ``file``."""

    file: ByteFile
    chosen: ChosenVersion
    lock_note: str
    """What was found about locks, for the report."""

    @property
    def file_name(self) -> str:
        """Return the name of the version's file."""
        return self.chosen.file_name

    @property
    def deny_write(self) -> bool:
        """Return whether the files below may be opened so that nobody writes them."""
        return not self.chosen.chain_locked

    def check_chain(self, disk: VirtualDisk) -> None:
        """Refuse a chain that leaves the vDisk.

        Raises:
            UnsupportedDisk: A file of the chain is none that the manifest lists or, without a
                manifest, none of this vDisk.
        """
        chain = disk.chain() if isinstance(disk, LinkedDisk) else []
        for one in chain:
            name = re.split(r"[\\/]", one.location)[-1]
            if name.casefold() not in self.chosen.chain_names:
                raise UnsupportedDisk(
                    f"Cannot read '{disk.location}': its chain goes through '{name}', which is no "
                    "version of this vDisk by its manifest or its name.",
                    hint="Restore the version that the chain was made on, under its own name.",
                    object=disk.location,
                )


@dataclass(frozen=True, slots=True)
class TargetName:
    """Where a vDisk will lie; plain values, so that a checkpoint can keep them."""

    vdisk: str
    file_name: str
    version: int


@dataclass(frozen=True, slots=True)
class Leftover:
    """A file of a publish that did not end; ``token`` is `token_of` what was published."""

    part_name: str
    file_name: str
    token: str


class VdiskStore:
    """The vDisks in a folder that PVS servers use as a store."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    @property
    def location(self) -> str:
        """Return where the store lies; holds no secret."""
        return self.folder.location

    def open_vdisk(self, name: str, *, accept_lock: bool = False) -> OpenVdisk:
        """Open the version of a vDisk that Production devices get, not what it builds on.

        ``name`` is the vDisk's, with or without ``.vhdx`` or ``.vhd``, or the file of a version
        (``gold.2.avhdx``). The lock that counts is that of the chosen version: PVS writes no
        version that another builds on. Without a lock file nobody can write while it is open. With
        one, only a Production version (by the manifest) is read, and nobody is kept out: devices
        stream from it. A lock of unknown kind needs ``accept_lock``; a file that somebody writes
        is always refused.

        Raises:
            FileMissing, FileLocked: as said.
            UnsupportedDisk: versions without a manifest, or VHD and VHDX of one name.
            BadDisk: the manifest.
        """
        chosen = self._choose(name, accept_lock=accept_lock)
        file = self.folder.open_read(chosen.file_name, deny_write=True)
        if not chosen.lock_name:
            return OpenVdisk(file, chosen, "not locked")
        file.close()  # it showed that nobody writes; devices that stream must not be kept out
        note = self._judge(chosen, accept_lock=accept_lock)
        return OpenVdisk(self.folder.open_read(chosen.file_name), chosen, note)

    def choose_target(self, name: str, *, if_exists: IfExists = IfExists.NEW_VERSION) -> TargetName:
        """Return the file a vDisk will be published as; nothing is created yet.

        Raises:
            InputError: PVS or Windows does not take the name.
            NameTaken: it exists, and a new version is not wanted or cannot be described.
        """
        vdisk = check_vdisk_name(name)
        found = VdiskFiles.look_up(self.folder, vdisk)
        if not found.files and not found.manifest_name:
            return TargetName(vdisk, versioned(vdisk, 0, "vhdx"), 0)
        subject = f"Cannot publish '{vdisk}' into '{self.location}'"
        if if_exists is IfExists.REFUSE:
            raise NameTaken(f"{subject}: the vDisk exists.")
        if any(file.suffix in {"vhd", "avhd"} for file in found.disks):
            raise NameTaken(
                f"{subject}: a VHD of that name exists, PVS takes no VHDX beside it.",
                hint="Choose another name.",
            )
        if found.manifest is None and (len(found.disks) != 1 or found.disks[0].version):
            raise NameTaken(
                f"{subject}: its files ({', '.join(f.name for f in found.files)}) are versions "
                "without a manifest.",
                hint="Export the manifest in the Provisioning console, or choose another name.",
            )
        version = found.highest_version + 1
        spelled = found.disks[0].name[: len(vdisk)] if found.disks else vdisk
        return TargetName(spelled, versioned(spelled, version, "vhdx"), version)

    def begin_file(self, target: TargetName, token: str) -> str:
        """Return the name under which the file grows; the same for the same target and token."""
        return f"{target.file_name}.{token_of(token)}.part"

    def finish(self, target: TargetName, part_name: str, last_write_ns: int) -> None:
        """Give a whole file its time and its name, then list it in the manifest.

        ``last_write_ns`` is in whole seconds: PVS compares it with the manifest's. `NameTaken`
        when somebody took the name meanwhile; the file stays under its part name then.
        """
        if last_write_ns % _SECOND_NS:
            raise InputError(f"Bad time for '{part_name}': found parts of a second, needed none.")
        if any(same_name(entry.name, target.file_name) for entry in self.folder.list()):
            raise NameTaken(f"Cannot publish '{self.location}/{target.file_name}': it exists.")
        self.folder.set_last_write(part_name, last_write_ns)
        self.folder.rename(part_name, target.file_name)
        self.complete(target, last_write_ns)

    def complete(self, target: TargetName, last_write_ns: int) -> None:
        """List a file that has its name in the manifest; may run twice, also after a crash."""
        found = VdiskFiles.look_up(self.folder, target.vdisk)
        manifest = found.manifest or self._described(found, target)
        size_bytes = self._size_of(target.file_name)
        listed = manifest.entry(target.version)
        if listed and (listed.disk_file_name, listed.size_bytes) == (target.file_name, size_bytes):
            return
        seconds = last_write_ns // _SECOND_NS
        entry = VersionEntry(
            number=target.version,
            disk_file_name=target.file_name,
            size_bytes=size_bytes,
            last_write_seconds=seconds,
            kind=VersionType.MERGE_BASE if target.version else VersionType.BASE,
            access=Access.PRODUCTION,
            create_date=date_text(seconds),
        )
        name = found.manifest_name or f"{target.vdisk}.xml"
        self.folder.write_bytes(name, render_manifest(manifest.with_version(entry)))
        self._clear_away(name)

    def discard(self, part_name: str) -> None:
        """Delete the file of a publish that will not go on; never any other file."""
        if _PART.fullmatch(part_name) is None:
            raise InputError(f"Cannot discard '{part_name}': it is no part of a publish.")
        self.folder.delete(part_name)

    def remove_version(self, vdisk: str, file_name: str) -> None:
        """Delete a whole disk that a later version replaces; one that is gone is no error.

        For folders of which the caller knows that it wrote the version. It is listed no more
        before its file goes.

        Raises:
            FileLocked: a PVS server has it: it has a lock or the properties of a registered vDisk.
            InputError: a difference builds on it, or it is the newest.
        """
        found = VdiskFiles.look_up(self.folder, vdisk)
        file = next((disk for disk in found.disks if same_name(disk.name, file_name)), None)
        entries = found.manifest.versions if found.manifest else ()
        newer = [disk for disk in found.disks if file and disk.version > file.version]
        if file and (not newer or newer[0].is_difference):
            raise InputError(
                f"Cannot remove '{self.location}/{file_name}': found "
                f"{newer[0].name if newer else 'no later version'}, needed a later whole disk."
            )
        served = [one.name for one in found.files if file and one.serves(file)]
        if served:
            raise FileLocked(
                f"Cannot remove '{self.location}/{file_name}': a PVS server has it, by "
                f"'{served[0]}'."
            )
        kept = tuple(one for one in entries if not same_name(one.disk_file_name, file_name))
        if kept and kept != entries:
            manifest = VersionManifest(kept, kept[0].number)
            self.folder.write_bytes(found.manifest_name, render_manifest(manifest))
        elif entries and not kept:
            self.folder.delete(found.manifest_name)  # one without versions is refused
        if file:
            self.folder.delete(file.name)

    def leftovers(self) -> list[Leftover]:
        """Return the files of publishes that did not end (or are under way now)."""
        found = [(entry.name, _PART.fullmatch(entry.name)) for entry in self.folder.list()]
        return [Leftover(name, match["file"], match["token"]) for name, match in found if match]

    def _clear_away(self, manifest_name: str) -> None:
        """Delete what a run that was killed while it wrote the manifest left beside it."""
        left = re.compile(re.escape(manifest_name) + r"\.[0-9a-f]{8}\.part", re.IGNORECASE)
        for entry in self.folder.list():
            if left.fullmatch(entry.name):
                with contextlib.suppress(FileLocked):
                    self.folder.delete(entry.name)

    def _choose(self, name: str, *, accept_lock: bool) -> ChosenVersion:
        vdisk, file = disk_named(name)
        found = VdiskFiles.look_up(self.folder, vdisk)
        if file is None:
            return found.choose(accept_lock=accept_lock)
        if file.version or file.is_difference:
            chosen = found.choose_file(name, accept_lock=accept_lock)
        else:
            # The base's name stands for the vDisk: what Production gets may be a later version.
            same_format = [one for one in found.disks if one.is_vhd == file.is_vhd]
            chosen = found.choose(accept_lock=accept_lock) if same_format else None
        if chosen is None:
            raise FileMissing(f"Cannot find vDisk '{name}' in '{self.location}'.")
        return chosen

    def _judge(self, chosen: ChosenVersion, *, accept_lock: bool) -> str:
        subject = f"Cannot read '{self.location}/{chosen.file_name}'"
        if chosen.access is not None and not chosen.access.is_fixed:
            raise FileLocked(
                f"{subject}: '{chosen.lock_name}' locks it and the manifest says "
                f"{chosen.access.name.lower().replace('_', ' ')}: a device may be writing it."
            )
        if chosen.access is not None:
            return f"'{chosen.lock_name}' on a Production version: devices stream from it"
        if accept_lock:
            return f"'{chosen.lock_name}' accepted by the operator"
        raise FileLocked(
            f"{subject}: '{chosen.lock_name}' locks it and no manifest says that it is in "
            "Production.",
            hint="Export the manifest in the Provisioning console, unlock the vDisk, or start "
            "again with accept_lock if you know that nobody writes it.",
        )

    def _described(self, found: VdiskFiles, target: TargetName) -> VersionManifest:
        """Return a manifest for a vDisk that had none: of its one base, or of nothing."""
        versions = []
        for file in found.disks:
            stat = self.folder.stat(file.name)
            if file.version == 0 and target.version and stat is not None:
                seconds = stat.last_write_ns // _SECOND_NS
                versions.append(
                    VersionEntry(
                        number=0,
                        disk_file_name=file.name,
                        size_bytes=stat.size_bytes,
                        last_write_seconds=seconds,
                        create_date=date_text(seconds),
                    )
                )
        return VersionManifest(tuple(versions))

    def _size_of(self, file_name: str) -> int:
        stat = self.folder.stat(file_name)
        if stat is None:
            raise FileMissing(f"Cannot find '{self.location}/{file_name}'.")
        return stat.size_bytes


def token_of(text: str) -> str:
    """Return what stands for an identity in a part file's name."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]
