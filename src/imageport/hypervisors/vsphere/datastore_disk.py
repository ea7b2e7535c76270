# References: vSphere Web Services SDK Programming Guide: datastore access by HTTP (/folder/…).
"""A disk's flat file on its datastore, read by ranges while a snapshot keeps it as it is."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPConnection
from typing import Any
from urllib.parse import quote, urlencode

from pyVmomi import vim

from imageport.errors import FileMissing, HypervisorRefused, SourceChanged, VmMissing
from imageport.formats._extent_merge import allocated_extents, merged
from imageport.formats.raw import RawDisk
from imageport.hypervisor import FrozenDisk
from imageport.hypervisors.vsphere.session import VsphereSession
from imageport.model import Extent, ExtentState
from imageport.storage.byte_file import ByteFile
from imageport.storage.http_file import HttpFile

_PATH = re.compile(r"\[([^\]]+)\] (.+)\.vmdk", re.DOTALL)
_FLAT = "-flat.vmdk"
_HOLE_SAMPLES = 16
_SAMPLE_BYTES = 64 * 1024
"""What changed block tracking tells at the least; a megabyte in all, a second on a slow link."""


class FlatFile:
    """Where a flat file is: the `HttpPlace` that `HttpFile` reads."""

    def __init__(self, session: VsphereSession, datacenter: str, backing: str) -> None:
        found = _PATH.fullmatch(backing)
        if not found:
            raise ValueError(backing)
        self.location = f"[{found[1]}] {found[2]}{_FLAT}"
        query = urlencode({"dcPath": datacenter, "dsName": found[1]}, quote_via=quote)
        self.target = f"/folder/{quote(found[2] + _FLAT)}?{query}"
        self._session = session

    def connect(self) -> HTTPConnection:
        """Return a new connection to the vCenter."""
        return self._session.connect()

    def headers(self) -> Mapping[str, str]:
        """Return the session's cookie."""
        return self._session.cookie()

    def renew(self) -> None:
        """Log in again."""
        self._session.renew()


class DatastoreDisk(RawDisk):
    """The flat file of a frozen disk; what was never allocated is HOLE where vCenter can tell."""

    format_name = "vmdk-flat"

    def __init__(
        self,
        file: HttpFile,
        frozen: FrozenDisk,
        allocated: list[tuple[int, int]] | None,
        check_frozen: Callable[[], None],
    ) -> None:
        super().__init__(file)
        self.location = frozen.location
        self._frozen = frozen
        self._areas = allocated
        self._check_frozen = check_frozen

    def extents(self) -> Iterator[Extent]:
        """Yield DATA for what is allocated, HOLE for the rest; all DATA when nobody can tell."""
        areas = [(0, self.size_bytes)] if self._areas is None else self._areas
        return merged(allocated_extents(areas, 0, self.size_bytes, ExtentState.HOLE))

    def content_key(self) -> str:
        """Return the identity of what is frozen: the same for every reading of it."""
        return f"vsphere:{self._frozen.key}"

    def check_unchanged(self) -> None:
        """Raise `SourceChanged` when the file changed, or nothing keeps it from changing."""
        super().check_unchanged()
        try:
            self._check_frozen()
        except (HypervisorRefused, VmMissing) as error:
            raise SourceChanged(
                f"Cannot go on reading '{self.location}': {error.message}"
            ) from error


def holes_read_as_zeros(file: ByteFile, allocated: list[tuple[int, int]], size_bytes: int) -> bool:
    """Read samples of what is said to be unallocated; False when one of them holds data.

    Releases of vSphere have left allocated areas out of their answer.
    """
    extents = allocated_extents(allocated, 0, size_bytes, ExtentState.HOLE)
    holes = [extent for extent in extents if extent.state is ExtentState.HOLE]
    for _ in range(_HOLE_SAMPLES if holes else 0):
        # By length: each byte of a hole is as likely to be looked at as any other.
        (hole,) = random.choices(holes, [one.length_bytes for one in holes])  # noqa: S311 - a sample
        count = min(_SAMPLE_BYTES, hole.length_bytes)
        start = hole.offset_bytes + random.randint(0, hole.length_bytes - count)  # noqa: S311 - same
        if any(file.read_at(start, count)):
            return False
    return True


def frozen_backing(device: Any, current: Any, frozen: FrozenDisk) -> str:
    """Return the datastore path of the file that holds all of a frozen disk and nothing newer.

    ``device`` is the disk as the snapshot has it, ``current`` as the machine has it now.

    Raises:
        HypervisorRefused: there is no such file; says why. The export lease sends any disk.
    """
    backing = device.backing
    if not isinstance(backing, vim.vm.device.VirtualDisk.FlatVer2BackingInfo):
        kind = type(backing).__name__.rsplit(".", maxsplit=1)[-1]
        raise _refused(frozen, f"its backing is a {kind}, no flat file")
    if backing.parent is not None:
        raise _refused(frozen, "an older snapshot or a linked clone lies below it, so no one file")
    if backing.keyId is not None:
        raise _refused(frozen, "it is encrypted")
    above = getattr(current, "backing", None)
    if above is None or above.fileName == backing.fileName:
        raise _refused(frozen, "the machine itself writes the file that the snapshot has")
    if not _PATH.fullmatch(str(backing.fileName)):
        raise _refused(frozen, f"'{backing.fileName}' is no file of a datastore")
    return str(backing.fileName)


def open_flat(place: FlatFile, frozen: FrozenDisk) -> HttpFile:
    """Open the flat file and check that it is as large as the disk."""
    try:
        file = HttpFile(place)
    except FileMissing as error:
        # vSAN and vVols keep objects behind the descriptor, ESXi itself may keep several extents.
        raise _refused(frozen, f"there is no '{place.location}'") from error
    if file.size_bytes != frozen.size_bytes:
        file.close()
        raise _refused(
            frozen, f"'{place.location}' has {file.size_bytes} bytes, needed {frozen.size_bytes}"
        )
    return file


def _refused(frozen: FrozenDisk, cause: str) -> HypervisorRefused:
    return HypervisorRefused(f"Cannot read parts of '{frozen.location}': {cause}.")
