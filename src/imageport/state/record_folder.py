"""Small JSON records in a folder that two sites write at the same time without a server.

A record is a file ``<id>.<counter>.json``; every change writes the next counter under a name of
its own and renames it into place without replacing. Of two writers that start from the same
counter one gets `NameTaken`, reads again and repeats its change, so no update is lost and a reader
never sees half a file. The highest counter is the record. Nothing here compares two clocks.

The last `KEPT_STATES` counters stay. A listing is no snapshot: a file that is renamed into place or
deleted while the listing runs may or may not be in it. Because the highest counter at its start is
not deleted before several more changes, every listing has it; and a writer that read an old state
finds its counter taken.
"""

from __future__ import annotations

import contextlib
import json
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from imageport.errors import (
    FileLocked,
    FileMissing,
    ImageportError,
    InputError,
    NameTaken,
    StateError,
)
from imageport.storage.folder import FileStat, Folder

SCHEMA = 1
LIMIT_BYTES = 16 * 1024 * 1024
"""No record comes near (a generation with two reports of a thousand changes has 1 MiB), and none
larger is written: one that could not be read would stop every listing."""
MAX_COUNTER = 10**12
KEPT_STATES = 8
"""More changes than one record can see during one listing: each takes several round trips."""
OLD_NS = 24 * 3600 * 10**9
"""What is a day older than the newest file of the folder has no writer any more; both times are the
file server's."""
CLAIM_NS = 5 * 10**9
"""A live writer renames within a second; both times are the file server's."""
ATTEMPTS = 200
"""Each lost race means that somebody else's change arrived, so this many are never needed."""

_NAME = re.compile(r"^(?P<id>[A-Za-z0-9][A-Za-z0-9_-]{0,127})\.(?P<counter>[0-9]{1,12})\.json$")
_PART = ".part"
_ID = re.compile(r"^[A-Za-z0-9][A-Za-z0-9_-]{0,127}$")

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stored:
    """A record as it lies in the folder."""

    id: str
    counter: int
    document: Document
    location: str
    """File, for messages."""
    removed: bool = False
    """Deleted, but its counter is kept so that a late writer cannot bring it back."""


class RecordFolder:
    """The records of one kind; may be used from several threads, processes and sites."""

    def __init__(self, folder: Folder, path: str, kind: str) -> None:
        self._folder = folder
        self._path = path
        self._kind = kind
        self._made = False
        self._tidied = False

    @property
    def location(self) -> str:
        """Return where the records lie, for messages."""
        return f"{self._folder.location}/{self._path}"

    def read(self, record_id: str) -> Stored | None:
        """Return the newest state of a record, or None; a damaged one raises `StateError`."""
        for _attempt in range(ATTEMPTS):
            counter = self._newest(record_id)
            if counter is None:
                return None
            # A writer may replace the file between the listing and the reading of it.
            with contextlib.suppress(FileMissing):
                stored = self._load(record_id, counter)
                return None if stored.removed else stored
        raise self._contended(record_id)

    def read_all(self) -> list[Stored]:
        """Return all records, sorted by id; damaged ones raise one `StateError` naming them all."""
        found, damaged = [], []
        entries = self._entries()
        for record_id, counter in sorted(_newest_of(entries).items()):
            try:
                stored = self._load(record_id, counter)
            except FileMissing:
                newer = self.read(record_id)
                if newer is None:
                    continue
                stored = newer
            except StateError as error:
                damaged.append(error)
                continue
            if not stored.removed:
                found.append(stored)
            elif _is_old(stored, entries):
                self.forget(record_id)
        if damaged:
            raise StateError(
                " ".join(error.message for error in damaged),
                hint=damaged[0].hint,
                files=[name for error in damaged for name in error.fields.get("files", [])],
            )
        return found

    def create(self, record_id: str, document: Document) -> Stored:
        """Write a new record; `NameTaken` if it exists."""
        self._check_id(record_id)
        counter = self._newest(record_id)
        if counter is None:
            return self._write(record_id, 1, document)
        with contextlib.suppress(FileMissing):
            if self._load(record_id, counter).removed:
                return self._write(record_id, counter + 1, document)
        raise NameTaken(f"Cannot create record '{self.location}/{record_id}': it exists.")

    def replace(self, stored: Stored, document: Document) -> Stored:
        """Write the next state of ``stored``; `NameTaken` if somebody wrote one since."""
        return self._write(stored.id, stored.counter + 1, document)

    def update(self, record_id: str, change: Callable[[Stored], Document]) -> Stored | None:
        """Apply ``change`` to the newest state until nobody interferes; None if there is none.

        ``change`` may be called several times and must not have other effects.
        """
        for attempt in range(ATTEMPTS):
            stored = self.read(record_id)
            if stored is None:
                return None
            with contextlib.suppress(NameTaken):
                return self.replace(stored, change(stored))
            # All together longer than `CLAIM_NS`: the other writer may have died over its claim.
            time.sleep(min(0.25, 0.005 * attempt))
        raise self._contended(record_id)

    def remove(self, record_id: str) -> None:
        """Remove a record; one that is not there is no error."""
        for _attempt in range(ATTEMPTS):
            stored = self.read(record_id)
            if stored is None:
                return
            with contextlib.suppress(NameTaken):
                self._write(record_id, stored.counter + 1, {}, removed=True)
                return
        raise self._contended(record_id)

    def forget(self, record_id: str) -> None:
        """Delete every file of a record, its counter too; only when no writer can be left."""
        names = [
            entry.name
            for entry in self._entries()
            if (parts := _NAME.match(entry.name)) and parts["id"] == record_id
        ]
        # The oldest first: an older state must never look like the newest.
        for name in sorted(names, key=lambda name: int(name.split(".")[1])):
            self._folder.delete(f"{self._path}/{name}")

    def last_write_ns(self, stored: Stored) -> int | None:
        """Return when the file server says it stored this state; None if it is gone."""
        entry = self._folder.stat(self._name(stored.id, stored.counter))
        return None if entry is None else entry.last_write_ns

    def server_now_ns(self) -> int:
        """Return the file server's clock, read from a file written for the purpose."""
        part = self._part()
        try:
            with self._folder.create(part) as file:
                file.write_at(0, b"now")
                file.flush()
            entry = self._folder.stat(part)
        finally:
            self._folder.delete(part)
        if entry is None:
            raise StateError(f"Cannot read the clock of '{self.location}': the probe file is gone.")
        return entry.last_write_ns

    def _write(
        self, record_id: str, counter: int, document: Document, *, removed: bool = False
    ) -> Stored:
        name = self._name(record_id, counter)
        text = json.dumps(
            {"schema": SCHEMA, "kind": self._kind, "removed": removed, "record": document},
            ensure_ascii=False,
            indent=1,
            sort_keys=True,
        ).encode("utf-8", "backslashreplace")
        if len(text) > LIMIT_BYTES:
            raise StateError(
                f"Cannot write record '{self._folder.location}/{name}': found {len(text)} bytes, "
                f"needed at most {LIMIT_BYTES}."
            )
        created = self._folder.create(part := self._claim(name))
        try:
            with created as file:
                file.write_at(0, text)
                file.flush()
            self._folder.rename(part, name)
        except ImageportError:
            self._folder.delete(part)
            raise
        stored = Stored(record_id, counter, document, f"{self._folder.location}/{name}", removed)
        self._settle(stored)
        return stored

    def _claim(self, name: str) -> str:
        """Return the name that a state grows under.

        Where a rename only checks that the new name is free and then renames, two of them at the
        same time could both succeed. There the name is the same for all writers of a counter, so
        that creating it (which is exclusive everywhere) claims the counter.
        """
        if self._folder.renames_atomically:
            return self._part()
        part = f"{name}{_PART}"
        self._make_folder()
        stat = self._folder.stat(part)
        if stat is not None and self.server_now_ns() - stat.last_write_ns > CLAIM_NS:
            # Its writer died between its two steps.
            with contextlib.suppress(FileLocked):
                self._folder.delete(part)
        return part

    def _settle(self, stored: Stored) -> None:
        """Remove states that are old enough; refuse the write if it was one of those.

        A writer that slept through `KEPT_STATES` changes finds its counter free again. What was
        written since is then in the listing. (Fewer changes since are built upon this one.)
        """
        states = {
            int(parts["counter"]): entry.name
            for entry in self._entries()
            if (parts := _NAME.match(entry.name)) and parts["id"] == stored.id
        }
        newest = max(states, default=stored.counter)
        if newest >= stored.counter + KEPT_STATES:
            self._folder.delete(self._name(stored.id, stored.counter))
            raise NameTaken(f"Cannot update '{stored.location}': it changed meanwhile.")
        for counter, name in states.items():
            if counter <= newest - KEPT_STATES:
                self._folder.delete(f"{self._path}/{name}")
        self._remove_parts()

    def _remove_parts(self) -> None:
        """Remove what killed writers left half-written, once per process."""
        if self._tidied:
            return
        self._tidied = True
        entries = self._entries()
        latest_ns = max((entry.last_write_ns for entry in entries), default=0)
        for entry in entries:
            if entry.name.endswith(_PART) and entry.last_write_ns < latest_ns - OLD_NS:
                self._folder.delete(f"{self._path}/{entry.name}")

    def _load(self, record_id: str, counter: int) -> Stored:
        name = self._name(record_id, counter)
        location = f"{self._folder.location}/{name}"
        try:
            envelope = json.loads(self._folder.read_bytes(name, LIMIT_BYTES))
        except InputError as error:
            raise damaged(location, str(error.message)) from error
        except (ValueError, RecursionError) as error:
            raise damaged(location, f"no JSON ({error})") from error
        if not isinstance(envelope, dict) or envelope.get("kind") != self._kind:
            raise damaged(location, f"it is no {self._kind} record")
        if envelope.get("schema") != SCHEMA:
            raise StateError(
                f"Bad record '{location}': found schema {envelope.get('schema')!r}, "
                f"needed {SCHEMA}.",
                hint="A newer release wrote it: use that release at every site.",
                files=[location],
            )
        document = envelope.get("record")
        if not isinstance(document, dict):
            raise damaged(location, "its content is missing")
        return Stored(record_id, counter, document, location, envelope.get("removed") is True)

    def _newest(self, record_id: str) -> int | None:
        self._check_id(record_id)
        return _newest_of(self._entries()).get(record_id)

    def _entries(self) -> list[FileStat]:
        try:
            return self._folder.list(self._path)
        except FileMissing:
            return []

    def _make_folder(self) -> None:
        if not self._made:
            self._folder.make_folder(self._path)
            self._made = True

    def _part(self) -> str:
        self._make_folder()
        return f"{self._path}/{secrets.token_hex(12)}{_PART}"

    def _name(self, record_id: str, counter: int) -> str:
        if counter > MAX_COUNTER:
            raise StateError(f"Cannot write record '{self.location}/{record_id}': counter is full.")
        return f"{self._path}/{record_id}.{counter:08}.json"

    def _check_id(self, record_id: str) -> None:
        if not _ID.match(record_id):
            raise InputError(
                f"Bad record id: found {record_id!r}, needed letters, digits, '-' and '_', "
                "at most 128."
            )

    def _contended(self, record_id: str) -> StateError:
        return StateError(
            f"Cannot update record '{self.location}/{record_id}': "
            f"it changed {ATTEMPTS} times in a row."
        )


def _newest_of(entries: list[FileStat]) -> dict[str, int]:
    """Return the newest counter of every id in a listing."""
    newest: dict[str, int] = {}
    for entry in entries:
        parts = _NAME.match(entry.name)
        if parts and not entry.is_folder:
            key = parts["id"]
            newest[key] = max(newest.get(key, -1), int(parts["counter"]))
    return newest


def _is_old(stored: Stored, entries: list[FileStat]) -> bool:
    written = {entry.name: entry.last_write_ns for entry in entries}
    mine_ns = written.get(stored.location.rsplit("/", 1)[-1])
    return mine_ns is not None and mine_ns < max(written.values()) - OLD_NS


def damaged(location: str, found: str) -> StateError:
    """Return the error for a record that cannot be read."""
    return StateError(
        f"Bad record '{location}': {found}.",
        hint="Restore the file from a backup of the state store, or move it away after checking "
        "by hand what it described: nothing is deleted in a cloud while it is unreadable.",
        files=[location],
    )
