# References: Azure, "Upload a VHD" (uploadSizeBytes), "Managed disk types" (Standard HDD),
# "Azure managed disks, OS disk" (largest size).
"""What sizes mean at Azure: how an image is rounded, how large it may be, how fast it goes in."""

from __future__ import annotations

from typing import Final

from imageport.clouds.azure.footer import FOOTER_BYTES
from imageport.errors import InputError
from imageport.model import GIB, MIB

SMALLEST_DISK_BYTES: Final = 20 * MIB
"""Smallest uploadSizeBytes (20972032) without its footer."""
LARGEST_OS_DISK_BYTES: Final = 4095 * GIB
"""Largest disk that a machine boots from."""
_FAST_SIZES: Final = ((8 * 1024 * GIB, 300), (32 * 1024 * GIB, 500))
"""S60, and S70 with S80: size up to which a class reaches, and its MiB/s."""
_SLOW_BYTES: Final = 4 * 1024 * GIB
_SLOW_MIB: Final = 60
"""S4 to S50."""
SHORTEST_ACCESS_SECONDS: Final = 3600.0
LONGEST_ACCESS_SECONDS: Final = 86400.0


def disk_bytes(size_bytes: int) -> int:
    """Return the size of the managed disk of an image: whole MiB, at least 20.

    Raises:
        InputError: larger than any disk that boots.
    """
    if size_bytes > LARGEST_OS_DISK_BYTES:
        raise InputError(
            f"Bad image size: found {size_bytes} bytes, needed at most {LARGEST_OS_DISK_BYTES} "
            "(4095 GiB, the largest disk that boots at Azure)."
        )
    return max(SMALLEST_DISK_BYTES, -(-size_bytes // MIB) * MIB)


def upload_bytes(size_bytes: int) -> int:
    """Return ``uploadSizeBytes`` for an image: the disk and the footer behind it."""
    return disk_bytes(size_bytes) + FOOTER_BYTES


def bytes_per_second(size_bytes: int) -> int:
    """Return how fast a disk of this size is uploaded: as a Standard HDD of its class is."""
    if size_bytes <= _SLOW_BYTES:
        return _SLOW_MIB * MIB
    for most, speed in _FAST_SIZES:
        if size_bytes <= most:
            return speed * MIB
    return _FAST_SIZES[-1][1] * MIB


def access_seconds(data_bytes: int, size_bytes: int) -> float:
    """Return for how long access is granted: twice what the disk's class needs for the bytes.

    A signed URL that leaks is good for no longer than this; what takes longer asks again.
    """
    estimate = 2.0 * data_bytes / bytes_per_second(size_bytes)
    return min(LONGEST_ACCESS_SECONDS, max(SHORTEST_ACCESS_SECONDS, estimate))
