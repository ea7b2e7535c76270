"""The words every part of imageport shares. Read this first.

Sizes and offsets are bytes unless a name says otherwise.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

MIB = 1024 * 1024
GIB = 1024 * MIB

BLOCK_BYTES = 512 * 1024
"""The unit that is hashed, sent and compared: the block of the EBS direct APIs, the smallest
block of the clouds we know; other clouds group several (4 MiB, 8 MiB)."""

ZERO_BLOCK = bytes(BLOCK_BYTES)
ZERO_DIGEST = hashlib.sha256(ZERO_BLOCK).digest()


class ExtentState(StrEnum):
    """What a range of a virtual disk holds; three things, never two."""

    HOLE = "hole"
    """Never allocated. Reads as zero here; an encrypted cloud volume may return anything."""
    ZERO = "zero"
    """Allocated or marked as zeros: the guest relies on reading zeros."""
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Extent:
    """A range of a virtual disk in one state."""

    offset_bytes: int
    length_bytes: int
    state: ExtentState

    @property
    def end_bytes(self) -> int:
        """Return the offset just behind the extent."""
        return self.offset_bytes + self.length_bytes


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What tells one content of a file from another without reading it.

    Times are nanoseconds since 1970; ``file_id`` is the server's or file system's own number.
    """

    path: str
    size_bytes: int
    last_write_ns: int
    change_ns: int
    file_id: int

    def key(self) -> str:
        """Return a stable text for cache keys; the path counts, its spelling on disk does not."""
        facts = (self.path.lower(), self.size_bytes, self.last_write_ns, self.file_id)
        return hashlib.sha256(repr(facts).encode()).hexdigest()


class CloudName(StrEnum):
    """The target clouds."""

    AWS = "aws"
    AZURE = "azure"
    GCP = "gcp"


class Provisioning(StrEnum):
    """How the target site runs machines from the image."""

    PVS = "pvs"
    MCS = "mcs"


class GenerationRole(StrEnum):
    """The three generations of an image at a target."""

    SOURCE = "S"
    UPLOADED = "U"
    PREPARED = "P"


@dataclass(frozen=True, slots=True)
class TransferStats:
    """Bytes and seconds of one transfer; ``requests`` counts writes that reached the target.

    ``bytes_copied`` came from the parent inside the cloud and are not in ``bytes_sent``.
    """

    bytes_planned: int = 0
    bytes_read: int = 0
    bytes_sent: int = 0
    bytes_copied: int = 0
    bytes_skipped: int = 0
    bytes_resumed: int = 0
    requests: int = 0
    retries: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return plain values for reports."""
        return {name: getattr(self, name) for name in self.__slots__}
