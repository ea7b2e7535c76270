"""Blocks whose content is known by digest: most of them need not be read."""

from __future__ import annotations

from imageport.errors import InputError
from imageport.model import ZERO_DIGEST
from imageport.transfer.manifest import Manifest
from imageport.transfer.needs import Need, Needs


class KnownBlocks:
    """Says of each block whether it has to be read, and always the same.

    A reader asks ahead of the one who gives the blocks, so nothing that another thread changes
    counts: whether the parent can still be taken from is asked once (``copying``), and what the
    journal holds of a block changes only after the block was given.
    """

    def __init__(self, known: Manifest | None, needs: Needs, *, copying: bool) -> None:
        self._known = known
        self._needs = needs
        self._copying = copying

    def digest(self, index: int) -> bytes | None:
        """Return the digest of a block if it is known and not in doubt."""
        if self._known is None or index in self._needs.doubted:
            return None
        return self._known.digest(index)

    def unread(self, index: int) -> tuple[Need, bytes] | None:
        """Return what a block needs that need not be read, and its digest; None: read it."""
        digest = self.digest(index)
        if digest is None:
            return None
        need = self._needs.of(index, digest, copying=self._copying)
        if need is Need.PUT and digest != ZERO_DIGEST:
            return None
        return need, digest


def check_known(known: Manifest | None, size_bytes: int, location: str) -> None:
    """Raise `InputError` for digests of a disk of another size."""
    if known is not None and known.size_bytes != size_bytes:
        raise InputError(
            f"Bad known digests of '{location}': found those of a disk of {known.size_bytes} "
            f"bytes, needed {size_bytes}."
        )
