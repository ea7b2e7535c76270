"""A set of SHA-256 digests in 32 bytes each, where Python's own takes more than a hundred."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from imageport.transfer.digest_table import DIGEST_BYTES

_BINS: Final = 256
"""By first byte: sorting one bin of a million digests takes half a megabyte."""
ABSENT: Final = -1


class DigestSet(Collection[bytes]):
    """Different digests in order; each has a place from 0 on. Never changes.

    Args:
        digests: Of `DIGEST_BYTES`, in any order, also several times.
    """

    def __init__(self, digests: Iterable[bytes]) -> None:
        bins = [bytearray() for _ in range(_BINS)]
        for digest in digests:
            if len(digest) != DIGEST_BYTES:
                raise ValueError(f"Bad digest: found {len(digest)} bytes, needed {DIGEST_BYTES}.")
            bins[digest[0]] += digest
        self._packed = bytearray()
        self._starts = array("Q", [0])
        """The place of the first digest of each bin, and the end."""
        for number, found in enumerate(bins):
            bins[number] = bytearray()  # each bin is released once it is packed
            self._packed += b"".join(sorted(set(_digests_in(found))))
            self._starts.append(len(self._packed) // DIGEST_BYTES)

    def place(self, digest: bytes) -> int:
        """Return the place of a digest, or `ABSENT`."""
        first, end = self._starts[digest[0]], self._starts[digest[0] + 1]
        found = bisect_left(range(end), digest, lo=first, key=self.at)
        return found if found < end and self.at(found) == digest else ABSENT

    def __contains__(self, digest: object) -> bool:
        return isinstance(digest, bytes) and self.place(digest) != ABSENT

    def __iter__(self) -> Iterator[bytes]:
        return map(self.at, range(len(self)))

    def __len__(self) -> int:
        return self._starts[-1]

    def at(self, place: int) -> bytes:
        """Return the digest at a place."""
        return bytes(self._packed[place * DIGEST_BYTES : (place + 1) * DIGEST_BYTES])


def _digests_in(packed: bytearray) -> Iterator[bytes]:
    for start in range(0, len(packed), DIGEST_BYTES):
        yield bytes(packed[start : start + DIGEST_BYTES])
