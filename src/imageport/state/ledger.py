"""The ledger: every cloud resource, written down as an intent before it is created.

A process killed between creating something and saying so leaves an ``intended`` entry, whose token
finds the resource. The sweep reads the ledger; the catalogue is what keeps a resource alive.
"""

from __future__ import annotations

import dataclasses
import secrets
from datetime import UTC, datetime, timedelta

from imageport.errors import InputError, RecordMissing
from imageport.state.record_fields import RecordFields
from imageport.state.record_folder import Document, RecordFolder, Stored, damaged
from imageport.state.records import LedgerEntry
from imageport.storage.folder import Folder

OPEN_STATES = ("intended", "created")
CLOSED_STATES = ("released", "deleted")
_ORDER = {"intended": 0, "created": 1, "released": 2, "deleted": 3}

KEEP_CLOSED = timedelta(hours=1)
"""Closed entries stay this long: a late writer must find that the entry was closed. Longer than
any pause between reading an entry and writing it; clocks of two sites may differ by less."""


class Ledger:
    """What exists in clouds because of us; for several threads, processes and sites."""

    def __init__(self, folder: Folder) -> None:
        self._records = RecordFolder(folder, "ledger", "ledger entry")

    def intend(
        self, kind: str, token: str, run: str, site: str, expires_seconds: float
    ) -> LedgerEntry:
        """Write down that a resource is about to be created; call before creating it."""
        now = datetime.now(UTC)
        entry = LedgerEntry(
            id=f"{now:%Y%m%d%H%M%S}-{secrets.token_hex(8)}",
            run=run,
            site=site,
            kind=kind,
            token=token,
            created=_text(now),
            expires=_text(now + timedelta(seconds=expires_seconds)),
        )
        self._records.create(entry.id, dataclasses.asdict(entry))
        return entry

    def record(self, entry_id: str, resource_id: str) -> None:
        """Write down the id of what was created."""
        self._change(entry_id, state="created", resource_id=resource_id)

    def mark(self, entry_id: str, state: str) -> None:
        """Move an entry on: ``released`` to the catalogue, or ``deleted`` in the cloud.

        States only move forwards; marking an entry that compaction removed is no error.
        """
        if state not in _ORDER:
            raise InputError(
                f"Bad ledger state: found {state!r}, needed one of {', '.join(_ORDER)}."
            )
        try:
            self._change(entry_id, state=state)
        except RecordMissing:
            if state not in CLOSED_STATES:
                raise

    def renew(self, run: str, seconds: float) -> None:
        """Push the expiry of every open entry of a run to ``seconds`` from now."""
        expires = _text(datetime.now(UTC) + timedelta(seconds=seconds))
        for entry in self.open_entries(run=run):
            try:
                self._change(entry.id, expires=expires)
            except RecordMissing:
                continue

    def open_entries(self, *, run: str = "", site: str = "") -> list[LedgerEntry]:
        """Return what may exist and belongs to no catalogue entry yet, oldest first.

        Closed entries past their keeping time are removed on the way.
        """
        found = []
        now = datetime.now(UTC)
        for stored in self._records.read_all():
            entry = _entry(stored)
            if entry.state in CLOSED_STATES:
                if datetime.fromisoformat(entry.details["closed"]) + KEEP_CLOSED < now:
                    self._records.forget(entry.id)
            elif (not run or entry.run == run) and (not site or entry.site == site):
                found.append(entry)
        return sorted(found, key=lambda entry: (entry.created, entry.id))

    def get(self, entry_id: str) -> LedgerEntry:
        """Return an entry in any state; `RecordMissing` if there is none."""
        stored = self._records.read(entry_id)
        if stored is None:
            raise self._missing(entry_id)
        return _entry(stored)

    def _change(self, entry_id: str, **changes: str) -> None:
        def change(stored: Stored) -> Document:
            entry = _entry(stored)
            details = dict(entry.details)
            if entry.state in CLOSED_STATES and changes.get("state") not in CLOSED_STATES:
                # A renewal or a late record must not reopen what somebody closed.
                return stored.document
            wanted = dict(changes)
            if _ORDER[wanted.get("state", entry.state)] < _ORDER[entry.state]:
                wanted.pop("state")
            if wanted.get("state") in CLOSED_STATES:
                details.setdefault("closed", _text(datetime.now(UTC)))
            changed = dataclasses.replace(entry, details=details)
            return dataclasses.asdict(changed) | wanted

        if self._records.update(entry_id, change) is None:
            raise self._missing(entry_id)

    def _missing(self, entry_id: str) -> RecordMissing:
        return RecordMissing(
            f"Cannot find ledger entry '{entry_id}': '{self._records.location}' has no such id."
        )


def _entry(stored: Stored) -> LedgerEntry:
    fields = RecordFields.of(stored)
    entry = LedgerEntry(
        id=fields.text("id"),
        run=fields.text("run"),
        site=fields.text("site"),
        kind=fields.text("kind"),
        token=fields.text("token"),
        created=fields.text("created"),
        expires=fields.text("expires"),
        resource_id=fields.text("resource_id"),
        state=fields.text("state"),
        details=fields.texts("details"),
    )
    fields.end()
    if entry.id != stored.id or entry.state not in _ORDER:
        raise damaged(stored.location, f"found id {entry.id!r} in state {entry.state!r}")
    times = [entry.created, entry.expires]
    if entry.state in CLOSED_STATES:
        times.append(entry.details.get("closed", ""))
    for time in times:
        _check_time(stored, time)
    return entry


def _check_time(stored: Stored, text: str) -> None:
    try:
        aware = datetime.fromisoformat(text).tzinfo is not None
    except ValueError as error:
        raise damaged(stored.location, f"found {text!r:.80}, needed an ISO 8601 time") from error
    if not aware:
        raise damaged(stored.location, f"found {text!r}, needed a time with its zone")


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
