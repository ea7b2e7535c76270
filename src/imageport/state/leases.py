"""Leases: one run at a time works on an image at a target, without a lock server.

A lease is a record whose counter goes up by one with every acquisition and renewal, written without
replacing (see `record_folder`). Whoever writes the next counter holds the lease; a holder that was
thought dead finds its next counter taken and knows at once that it lost.

Whether a holder is dead is decided by one clock only, the file server's: the time that it gave the
last renewal against the time that it gives a file written now. Clocks of sites and workers play no
part. The holder trusts its own monotonic clock only for the length of one interval: when its last
renewal is older than the time to live it no longer claims the lease, whatever the store says.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from types import TracebackType
from typing import Self

from imageport.errors import ImageportError, LeaseHeld, LeaseLost, NameTaken
from imageport.state.record_fields import RecordFields
from imageport.state.record_folder import Document, RecordFolder, Stored
from imageport.storage.folder import Folder

GRACE_SECONDS = 2.0
"""File servers may show a write late; Samba holds time stamps back by up to two seconds."""
ATTEMPTS = 20
RENEWALS_PER_TTL = 4
"""Three renewals may fail before the lease is lost."""


class Leases:
    """The leases of a state store."""

    def __init__(self, folder: Folder) -> None:
        self._records = RecordFolder(folder, "leases", "lease")

    def lease(self, name: str, owner: str, ttl_seconds: float = 60.0) -> Lease:
        """Return the lease ``name`` for ``owner``; entering it takes it."""
        return Lease(self._records, name, owner, ttl_seconds)

    def holders(self) -> dict[str, str]:
        """Return lease name → owner of every lease that is held and not run out."""
        found = {}
        now_ns: int | None = None
        for stored in self._records.read_all():
            holder = _Holder.of(stored)
            if not holder.held:
                continue
            now_ns = self._records.server_now_ns() if now_ns is None else now_ns
            if not _run_out(self._records, stored, holder.ttl_seconds, now_ns):
                found[holder.name] = holder.owner
        return found


class Lease:
    """A lease while it is held; a context manager that renews in the background.

    ``owner`` names the run: the same owner takes its own lease over at once after a crash, and an
    older process of that run then loses it. Others get `LeaseHeld` until it has run out.
    """

    def __init__(self, records: RecordFolder, name: str, owner: str, ttl_seconds: float) -> None:
        self.name = name
        self.owner = owner
        self.fencing = 0
        """Goes up with every acquisition; a store that compares it can refuse late writers."""
        self._records = records
        self._ttl_seconds = ttl_seconds
        self._id = hashlib.sha256(name.encode()).hexdigest()[:40]
        self._stored: Stored | None = None
        self._renewed = 0.0
        self._lost = ""
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        started = time.monotonic()
        self._stored = self._acquire()
        self._renewed = started
        self._lost = ""
        self._end.clear()
        self._thread = threading.Thread(target=self._renew_until_end, name="lease", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end.set()
        if self._thread is not None:
            self._thread.join(self._ttl_seconds)
        stored, self._stored = self._stored, None
        if stored is not None and not self._lost:
            # A lease that cannot be given back runs out; its error must not hide the run's own.
            with contextlib.suppress(ImageportError):
                self._records.replace(stored, self._document(held=False))

    def check(self) -> None:
        """Raise `LeaseLost` unless the lease is certainly still ours; cheap, asks no server."""
        lost = self._lost
        if not lost and self._stored is None:
            lost = "it is not held"
        if not lost and time.monotonic() - self._renewed > self._ttl_seconds:
            lost = f"it could not be renewed for {self._ttl_seconds:.0f} s"
        if lost:
            raise LeaseLost(f"Cannot go on under lease '{self.name}': {lost}.", lease=self.name)

    def _acquire(self) -> Stored:
        for _attempt in range(ATTEMPTS):
            with contextlib.suppress(NameTaken):
                return self._try_to_acquire()
            # Somebody wrote meanwhile: another contender, or our own older process renewing.
        raise self._held_by("somebody who keeps writing it")

    def _try_to_acquire(self) -> Stored:
        stored = self._records.read(self._id)
        if stored is None:
            self.fencing = 1
            return self._records.create(self._id, self._document(held=True))
        holder = _Holder.of(stored)
        if holder.held and holder.owner != self.owner:
            now_ns = self._records.server_now_ns()
            if not _run_out(self._records, stored, holder.ttl_seconds, now_ns):
                raise self._held_by(holder.owner)
        self.fencing = holder.fencing + 1
        return self._records.replace(stored, self._document(held=True))

    def _renew_until_end(self) -> None:
        while not self._end.wait(self._ttl_seconds / RENEWALS_PER_TTL):
            stored = self._stored
            if stored is None:
                return
            started = time.monotonic()
            try:
                self._stored = self._records.replace(stored, self._document(held=True))
            except NameTaken:
                if not self._is_own_renewal(stored):
                    self._lost = "another run took it over"
                    return
            except ImageportError:
                # The server may be back at the next beat; check() decides when it is too late.
                continue
            self._renewed = started

    def _is_own_renewal(self, stored: Stored) -> bool:
        """Tell whether the taken counter is our own: the answer to the write got lost."""
        with contextlib.suppress(ImageportError):
            newest = self._records.read(self._id)
            if newest is not None and newest.counter == stored.counter + 1:
                holder = _Holder.of(newest)
                if (holder.owner, holder.fencing) == (self.owner, self.fencing):
                    self._stored = newest
                    return True
        return False

    def _document(self, *, held: bool) -> Document:
        return {
            "name": self.name,
            "owner": self.owner,
            "fencing": self.fencing,
            "ttl_ms": int(self._ttl_seconds * 1000),
            "held": "yes" if held else "no",
        }

    def _held_by(self, owner: str) -> LeaseHeld:
        return LeaseHeld(
            f"Cannot take lease '{self.name}': {owner} holds it.", lease=self.name, owner=owner
        )


class _Holder:
    """Who holds a lease, as the record says."""

    def __init__(self, fields: RecordFields) -> None:
        self.name = fields.text("name")
        self.owner = fields.text("owner")
        self.fencing = fields.number("fencing")
        self.ttl_seconds = fields.number("ttl_ms") / 1000
        self.held = fields.text("held") == "yes"
        fields.end()

    @classmethod
    def of(cls, stored: Stored) -> _Holder:
        return cls(RecordFields.of(stored))


def _run_out(records: RecordFolder, stored: Stored, ttl_seconds: float, now_ns: int) -> bool:
    written_ns = records.last_write_ns(stored)
    if written_ns is None:
        return False
    return now_ns - written_ns > (ttl_seconds + GRACE_SECONDS) * 1e9
