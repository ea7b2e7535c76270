"""The Windows partition: a real NTFS made by mkntfs and filled by ntfs-3g or by libguestfs.

Mounting through FUSE takes seconds but needs root; libguestfs works for everybody and takes one
start of its machine (about 20 s under emulation).
"""

from __future__ import annotations

import json
import os
import struct
import tarfile
from pathlib import Path

from imageport.errors import EngineFailed, MissingTool
from imageport.sandbox.firmware import probe_kvm
from imageport.sandbox.sample import recipe
from imageport.sandbox.sample.faults import set_dirty_flag
from imageport.sandbox.sample.programs import available, run
from imageport.sandbox.sample.recipe import Partition
from imageport.sandbox.sample.security_descriptor import descriptor_for
from imageport.sandbox.sample.windows_files import FILE_TIME_SECONDS

_GUESTFS_SCRIPT = Path(__file__).parent / "fill_with_guestfs.py"
_SERIAL_AT = 0x48
_COPY_BYTES = recipe.MIB
_LABELS = {recipe.WINDOWS.name: "Windows"}
_ROOM_PERCENT, _ROOM_BYTES = 110, 32 * recipe.MIB


def make_ntfs_volume(volume: Path, contents: Path, part: Partition = recipe.WINDOWS) -> None:
    """Write a clean NTFS for a partition, with the tar ``contents``, into the new file ``volume``.

    The file system is filled while it is small and then grown: ntfs-3g leaves 16 MiB between new
    files where it has room, which would touch half of all 32 MiB blocks for a few MiB of files.
    """
    filled = contents.stat().st_size * _ROOM_PERCENT // 100 + _ROOM_BYTES
    with volume.open("wb") as file:
        file.truncate(filled // recipe.MIB * recipe.MIB)
    start = part.first // 512
    run(["mkntfs", "-F", "-Q", "-q", "-s", "512", "-H", "255", "-S", "63", "-p", str(start),
         "-L", _LABELS.get(part.name, part.name), volume])  # fmt: skip
    if not _fill_through_fuse(volume, contents):
        _fill_through_guestfs(volume, contents)
    with volume.open("r+b") as file:
        file.truncate(part.size)
    run(["ntfsresize", "--force", "--force", "--no-progress-bar", volume])
    # Growing asks for a check at the next mount. ntfsfix would clear that, but not on a volume
    # that looks hibernated.
    set_dirty_flag(volume, dirty=False)
    _set_serial(volume, part.size)


def _set_serial(volume: Path, size_bytes: int) -> None:
    """Replace the random serial number in the boot sector and in its copy in the last sector."""
    serial = struct.pack("<Q", recipe.NTFS_SERIAL)
    with volume.open("r+b") as file:
        for sector in (0, size_bytes - 512):
            file.seek(sector)
            if file.read(11)[3:11] == b"NTFS    ":
                file.seek(sector + _SERIAL_AT)
                file.write(serial)


def _fill_through_fuse(volume: Path, contents: Path) -> bool:
    """Fill the volume mounted on this machine; False when this user cannot mount."""
    if os.geteuid() != 0 or not Path("/dev/fuse").exists() or not available("ntfs-3g"):
        return False
    mount = volume.with_suffix(".mount")
    mount.mkdir()
    try:
        run(["ntfs-3g", "-o", "permissions,big_writes,noatime", volume, mount])
    except EngineFailed:
        mount.rmdir()
        return False  # containers often have the device but not the right to mount
    try:
        with tarfile.open(contents) as archive:
            _extract(archive, mount)
            # ntfs-3g made everything open to everybody; its option "inherit" changes nothing here.
            for path, descriptor in _descriptors(archive).items():
                os.setxattr(mount / path, "system.ntfs_acl", descriptor)
    finally:
        run(["umount", mount])
        mount.rmdir()
    return True


def _extract(archive: tarfile.TarFile, root: Path) -> None:
    members = archive.getmembers()
    for member in members:
        target = root / member.name
        if member.isdir():
            target.mkdir(exist_ok=True)
            continue
        source = archive.extractfile(member)
        if source is None:
            raise EngineFailed(f"Cannot write '{member.name}': it is no file and no folder.")
        with source, target.open("wb") as file:
            while piece := source.read(_COPY_BYTES):
                file.write(piece)
    for member in reversed(members):
        os.utime(root / member.name, (FILE_TIME_SECONDS, FILE_TIME_SECONDS))


def _fill_through_guestfs(volume: Path, contents: Path) -> None:
    python = Path("/usr/bin/python3")
    if not python.exists():
        raise MissingTool(f"Cannot fill the sample's NTFS: no {python} with the guestfs module.")
    environment = {"LIBGUESTFS_BACKEND": "direct"}
    if not probe_kvm():
        environment["LIBGUESTFS_BACKEND_SETTINGS"] = "force_tcg"
    wanted = volume.with_suffix(".json")
    with tarfile.open(contents) as archive:
        table = {path: data.hex() for path, data in _descriptors(archive).items()}
    wanted.write_text(json.dumps(table), encoding="utf-8")
    run([python, _GUESTFS_SCRIPT, volume, contents, wanted], env=environment)


def _descriptors(archive: tarfile.TarFile) -> dict[str, bytes]:
    """Return the security descriptor of each path in the archive and of the root."""
    found = {"": descriptor_for("", folder=True)}
    for member in archive.getmembers():
        found[member.name] = descriptor_for(member.name, folder=member.isdir())
    return found
