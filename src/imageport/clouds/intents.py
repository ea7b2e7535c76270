"""What every cloud does before it creates anything: write an intent into the ledger, once.

Tags and client tokens follow from the ledger entry alone, so a call repeated after a crash asks
the cloud for exactly the same thing and gets what exists.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from imageport.clouds.tags import (
    TAG_EXPIRES,
    TAG_NAME,
    TAG_ROLE,
    TAG_RUN,
    TAG_SITE,
    TAG_TOKEN,
)
from imageport.errors import ImageportError
from imageport.state.ledger import Ledger
from imageport.state.records import LedgerEntry

NAME_CHARACTERS = 200


def token_of(*facts: str) -> str:
    """Return the deterministic token of a resource: short enough for every field of a cloud."""
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Intent:
    """A resource that is about to be made, as the ledger knows it."""

    entry: LedgerEntry
    tags: dict[str, str]

    @property
    def token(self) -> str:
        """Return what `TAG_TOKEN` holds."""
        return self.entry.token

    @property
    def client_token(self) -> str:
        """Return the idempotency token: new when an earlier resource was marked deleted."""
        return token_of(self.entry.id, self.entry.token)


class Intents:
    """The intents of one run at one site; may be used from several threads.

    Args:
        ledger: Of the site's state store.
        scope: What every token starts with (`imageport.cloud.Cloud.scope`).
        site: Whose resources these are.
        run: The run that makes them.
        expires_seconds: How long a resource outlives the last sign of life of its run.
    """

    def __init__(
        self, ledger: Ledger, scope: str, site: str, run: str, expires_seconds: float
    ) -> None:
        self.ledger = ledger
        self.scope = scope
        self.site = site
        self.run = run
        self.expires_seconds = expires_seconds
        self._entries: dict[str, str] = {}
        self._renewed = time.monotonic()
        self._lock = threading.Lock()

    def intend(
        self, kind: str, role: str, *facts: str, name: str = "", fresh: bool = False
    ) -> Intent:
        """Write down that a resource is about to be made; finds the entry of a killed call.

        ``facts`` make the token together with site, kind and role. ``fresh`` makes a new entry
        beside one that exists, and leaves the older one to the sweep.
        """
        token = f"{self.scope}/{token_of(self.site, kind, role, *facts)}"
        entry = None if fresh else self._open_entry(kind, token)
        if entry is None:
            entry = self._new_entry(kind, token)
        elif entry.resource_id:
            entry = self._own(entry, entry.resource_id)
        expires = datetime.fromisoformat(entry.created) + timedelta(seconds=self.expires_seconds)
        tags = {
            TAG_SITE: entry.site,
            TAG_RUN: entry.run,
            TAG_ROLE: role,
            TAG_EXPIRES: expires.astimezone(UTC).isoformat(timespec="seconds"),
            TAG_TOKEN: token,
        }
        return Intent(entry, tags | ({TAG_NAME: name[:NAME_CHARACTERS]} if name else {}))

    def record(self, intent: Intent, resource_id: str) -> None:
        """Write down the id of what was made."""
        if intent.entry.resource_id != resource_id:
            self.ledger.record(intent.entry.id, resource_id)
        self._own(intent.entry, resource_id)

    def void(self, intent: Intent) -> None:
        """Write down that what ``intent`` made is gone, so the next call makes a new one."""
        self.ledger.mark(intent.entry.id, "deleted")

    def mark(self, resource_id: str, state: str) -> None:
        """Write down that a resource was ``deleted`` or ``released`` to the catalogue."""
        entry_id = self._entries.get(resource_id)
        if entry_id is None:
            open_entries = self.ledger.open_entries(site=self.site)
            found = [item for item in open_entries if item.resource_id == resource_id]
            entry_id = found[0].id if found else None
        if entry_id is not None:
            self.ledger.mark(entry_id, state)

    def live(self) -> None:
        """Push the expiry of everything of this run, at a quarter of its time; cheap otherwise.

        Called from every waiting loop and every put, so a long run is never swept.
        """
        with self._lock:
            if time.monotonic() - self._renewed < self.expires_seconds / 4:
                return
            self._renewed = time.monotonic()
        self.renew()

    def renew(self) -> None:
        """Push the expiry in the ledger, which counts, and in the tags, which tell people.

        A run may have several clouds: each writes the tags of what is its own.
        """
        self.ledger.renew(self.run, self.expires_seconds)
        expires = datetime.now(UTC) + timedelta(seconds=self.expires_seconds)
        for entry in self.ledger.open_entries(run=self.run):
            if entry.resource_id and entry.token.startswith(f"{self.scope}/"):
                self.tag_expiry(entry, expires.isoformat(timespec="seconds"))

    def tag_expiry(self, entry: LedgerEntry, expires: str) -> None:
        """Write the new expiry on the resource itself; clouds with tags override this."""

    def undo_all(self, steps: list[tuple[str, Callable[[], None]]]) -> list[str]:
        """Run every clean-up step although others fail; return what stayed behind and why.

        The sweep removes what stays behind, so a clean-up error never hides the error before it.
        """
        left = []
        for subject, step in steps:
            try:
                step()
            except ImageportError as error:  # of the state store, too
                left.append(f"{subject}: {error.message}")
        return left

    def _open_entry(self, kind: str, token: str) -> LedgerEntry | None:
        found = [
            entry
            for entry in self.ledger.open_entries(site=self.site)
            if entry.kind == kind and entry.token == token
        ]
        return found[-1] if found else None

    def _new_entry(self, kind: str, token: str) -> LedgerEntry:
        return self.ledger.intend(kind, token, self.run, self.site, self.expires_seconds)

    def _own(self, entry: LedgerEntry, resource_id: str) -> LedgerEntry:
        """Return the entry of a resource under this run's name.

        What an earlier run made and this one takes up must not be swept when the janitor cleans
        up after the earlier one.
        """
        if entry.run != self.run:
            earlier, entry = entry, self._new_entry(entry.kind, entry.token)
            self.ledger.record(entry.id, resource_id)
            self.ledger.mark(earlier.id, "released")
            entry = replace(entry, resource_id=resource_id)
        self._entries[resource_id] = entry.id
        return entry
