"""A block that several transfers send: hashed by the first that needs its digest."""

from __future__ import annotations

import hashlib
import threading
from typing import Self

from imageport.model import BLOCK_BYTES, ZERO_BLOCK, ZERO_DIGEST


class HashedOnce(bytes):
    """The bytes of one whole block with their SHA-256, computed when first asked for.

    Transfers that go side by side ask at the same moment, so the second waits for the first.
    """

    _digest: bytes = b""
    _hashing: threading.Lock

    def __new__(cls, data: bytes | memoryview) -> Self:
        """Take a copy of exactly BLOCK_BYTES."""
        if len(data) != BLOCK_BYTES:
            raise ValueError(f"Bad block: found {len(data)} bytes, needed {BLOCK_BYTES}.")
        made = super().__new__(cls, data)
        made._hashing = threading.Lock()
        return made

    def digest(self) -> bytes:
        """Return the SHA-256."""
        with self._hashing:
            if not self._digest:
                # Comparing costs a fiftieth of hashing, and much of every disk is zeros.
                is_zero = self == ZERO_BLOCK
                self._digest = ZERO_DIGEST if is_zero else hashlib.sha256(self).digest()
            return self._digest
