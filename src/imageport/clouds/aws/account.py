"""One run in one account: clients, tags, and the ledger that knows of everything it creates."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from imageport.clouds.aws.clients import AwsClients
from imageport.clouds.aws.error_mapping import asked
from imageport.clouds.aws.settings import AwsSettings
from imageport.clouds.tags import TAG_EXPIRES, TAG_ROLE, TAG_RUN, TAG_SITE, TAG_TOKEN
from imageport.errors import CloudError
from imageport.state.ledger import Ledger
from imageport.state.records import LedgerEntry

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagSpecificationTypeDef


def token_of(*facts: str) -> str:
    """Return the deterministic token of a resource: short enough for every field of AWS."""
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:40]


@dataclass(frozen=True, slots=True)
class Intent:
    """A resource that is about to be made, as the ledger knows it.

    Tags and client token follow from the ledger entry alone, so a repeated call after a crash asks
    AWS for exactly the same thing and gets what exists; a changed tag would be a conflict.
    """

    entry: LedgerEntry
    tags: dict[str, str]

    @property
    def token(self) -> str:
        """Return what `TAG_TOKEN` holds."""
        return self.entry.token

    @property
    def client_token(self) -> str:
        """Return AWS's idempotency token: new when an earlier resource was marked deleted."""
        return token_of(self.entry.id, self.entry.token)

    def tag_list(self) -> list[Any]:
        """Return the tags as AWS writes them."""
        return [{"Key": key, "Value": value} for key, value in sorted(self.tags.items())]

    def specifications(self, *resource_types: str) -> list[TagSpecificationTypeDef]:
        """Return the tags for a call that creates ``resource_types``."""
        kinds: Any = resource_types
        return [{"ResourceType": kind, "Tags": self.tag_list()} for kind in kinds]


class Account:
    """What every part of the AWS cloud works with; may be used from several threads."""

    def __init__(
        self, settings: AwsSettings, clients: AwsClients, ledger: Ledger, run: str
    ) -> None:
        self.settings = settings
        self.clients = clients
        self.ledger = ledger
        self.run = run
        self.scope = f"aws/{settings.region}"
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
        token = f"{self.scope}/{token_of(self.settings.site, kind, role, *facts)}"
        entry = None if fresh else self._open_entry(kind, token)
        if entry is None:
            entry = self._new_entry(kind, token)
        elif entry.resource_id:
            entry = self._own(entry, entry.resource_id)
        expires = datetime.fromisoformat(entry.created) + timedelta(
            seconds=self.settings.expires_seconds
        )
        tags = {
            TAG_SITE: entry.site,
            TAG_RUN: entry.run,
            TAG_ROLE: role,
            TAG_EXPIRES: expires.astimezone(UTC).isoformat(timespec="seconds"),
            TAG_TOKEN: token,
        }
        return Intent(entry, tags | ({"Name": name[:200]} if name else {}))

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
            open_entries = self.ledger.open_entries(site=self.settings.site)
            found = [item for item in open_entries if item.resource_id == resource_id]
            entry_id = found[0].id if found else None
        if entry_id is not None:
            self.ledger.mark(entry_id, state)

    def live(self) -> None:
        """Push the expiry of everything of this run, at a quarter of its time; cheap otherwise.

        Called from every waiting loop and every put, so a long run is never swept.
        """
        with self._lock:
            if time.monotonic() - self._renewed < self.settings.expires_seconds / 4:
                return
            self._renewed = time.monotonic()
        self.renew()

    def renew(self) -> None:
        """Push the expiry in the ledger and in the tags."""
        expires = datetime.now(UTC) + timedelta(seconds=self.settings.expires_seconds)
        tag: Any = {"Key": TAG_EXPIRES, "Value": expires.isoformat(timespec="seconds")}
        self.ledger.renew(self.run, self.settings.expires_seconds)
        for entry in self.ledger.open_entries(run=self.run):
            if entry.resource_id and entry.kind != "object":
                # One at a time: AWS refuses the whole call when one id is gone.
                with contextlib.suppress(CloudError), asked("ec2:CreateTags", entry.resource_id):
                    self.clients.ec2.create_tags(Resources=[entry.resource_id], Tags=[tag])

    def undo_all(self, steps: list[tuple[str, Callable[[], None]]]) -> list[str]:
        """Run every clean-up step although others fail; return what stayed behind and why.

        The sweep removes what stays behind, so a clean-up error never hides the error before it.
        """
        left = []
        for subject, step in steps:
            try:
                step()
            except CloudError as error:
                left.append(f"{subject}: {error.message}")
        return left

    def _open_entry(self, kind: str, token: str) -> LedgerEntry | None:
        found = [
            entry
            for entry in self.ledger.open_entries(site=self.settings.site)
            if entry.kind == kind and entry.token == token
        ]
        return found[-1] if found else None

    def _new_entry(self, kind: str, token: str) -> LedgerEntry:
        settings = self.settings
        return self.ledger.intend(kind, token, self.run, settings.site, settings.expires_seconds)

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
