# References: Cloud Storage JSON API v1, Objects: generation, metageneration, componentCount.
"""The bucket's objects, on disk: they outlive a restart.

Bytes are files; what is known of them stands in memory and in one journal, so that listing 60,000
small objects opens no file.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from bisect import bisect_left, insort
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

Check = Callable[["StoredObject | None"], None]
"""Looks at what stands under a name, None when nothing does; raises to stop a change."""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """What a writer says of an object."""

    crc32c: str
    """Base64 of the four bytes, as in the resource."""
    md5: str = ""
    """Base64; empty for composed objects, which have none."""
    components: int = 0
    """How many pieces it was composed of; 0 when it was not composed."""
    kms_key: str = ""
    properties: dict[str, str] = field(default_factory=dict)
    """``contentType`` and the like, as in the resource."""
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredObject:
    """One object; its bytes are in a file of their own, so that a reader keeps what it opened."""

    name: str
    size_bytes: int
    generation: int
    metageneration: int
    created: float
    """Seconds since the epoch."""
    updated: float
    facts: ObjectFacts
    file: str


class ObjectStore:
    """All objects of one bucket; used from all request threads."""

    def __init__(self, root: Path) -> None:
        self._folder = root
        self._lock = threading.RLock()
        self._objects: dict[str, StoredObject] = {}
        self._names: list[str] = []
        self._generation = 0
        for index in range(16):
            (root / f"{index:x}").mkdir(parents=True, exist_ok=True)
        self._journal_path = root / "journal.jsonl"
        self._read_journal()
        self._journal = self._journal_path.open("ab", buffering=0)

    def close(self) -> None:
        """Let go of the journal; may be called twice."""
        self._journal.close()

    def get(self, name: str) -> StoredObject | None:
        """Return an object, None if there is none."""
        with self._lock:
            return self._objects.get(name)

    def all(self) -> list[StoredObject]:
        """Return every object, in the order of their names."""
        with self._lock:
            return [self._objects[name] for name in self._names]

    def open(self, name: str, check: Check) -> tuple[StoredObject, BinaryIO] | None:
        """Open an object's bytes; the caller closes. None if there is none."""
        with self._lock:
            found = self._objects.get(name)
            check(found)
            return None if found is None else (found, (self._folder / found.file).open("rb"))

    def new_part(self) -> Path:
        """Return where bytes may be written that `put` makes an object of."""
        name = secrets.token_hex(12)
        return self._folder / name[:1] / f"{name}.part"

    def put(self, name: str, part: Path, facts: ObjectFacts, check: Check) -> StoredObject:
        """Make an object of a written part, replacing one of its name."""
        file = part.with_suffix(".object")
        with self._lock:
            before = self._objects.get(name)
            check(before)
            part.rename(file)
            now = time.time()
            # A generation is the time in microseconds, and never the same twice.
            self._generation = max(self._generation + 1, int(now * 1_000_000))
            size, place = file.stat().st_size, str(file.relative_to(self._folder))
            found = StoredObject(name, size, self._generation, 1, now, now, facts, place)
            self._note({"put": _document(found)})
            self._objects[name] = found
            if before is None:
                insort(self._names, name)
        if before is not None:
            (self._folder / before.file).unlink(missing_ok=True)
        return found

    def patch(
        self, name: str, change: Callable[[ObjectFacts], ObjectFacts], check: Check
    ) -> StoredObject | None:
        """Change what is known of an object; return it as it is now, None if there is none."""
        with self._lock:
            before = self._objects.get(name)
            check(before)
            if before is None:
                return None
            number = before.metageneration + 1
            facts = change(before.facts)
            after = replace(before, facts=facts, metageneration=number, updated=time.time())
            self._note({"put": _document(after)})
            self._objects[name] = after
            return after

    def delete(self, name: str, check: Check) -> bool:
        """Delete an object; False when there is none."""
        with self._lock:
            found = self._objects.get(name)
            check(found)
            if found is None:
                return False
            self._note({"gone": name})
            del self._objects[name]
            del self._names[bisect_left(self._names, name)]
        (self._folder / found.file).unlink(missing_ok=True)
        return True

    def page(self, prefix: str, start: str, end: str, most: int) -> list[StoredObject]:
        """Return up to ``most`` objects from ``start`` on, in the order of their names."""
        with self._lock:
            index = bisect_left(self._names, max(prefix, start))
            found = []
            for name in self._names[index : index + most]:
                if not name.startswith(prefix) or (end and name >= end):
                    break
                found.append(self._objects[name])
            return found

    def _note(self, entry: dict[str, Any]) -> None:
        self._journal.write(json.dumps(entry).encode() + b"\n")

    def _read_journal(self) -> None:
        """Take up what an earlier process kept; what it had half written goes."""
        # Looked at once: a question for each of 60,000 files takes seconds.
        files = {
            f"{folder.name}/{name}"
            for folder in self._folder.iterdir()
            if folder.is_dir()
            for name in os.listdir(folder)  # noqa: PTH208 - names alone, not 60,000 paths
        }
        if self._journal_path.exists():
            for line in self._journal_path.read_bytes().splitlines():
                self._replay(line, files)
        for place in files - {found.file for found in self._objects.values()}:
            (self._folder / place).unlink()
        self._names = sorted(self._objects)
        fresh = self._journal_path.with_suffix(".new")
        with fresh.open("wb") as journal:
            for found in self._objects.values():
                journal.write(json.dumps({"put": _document(found)}).encode() + b"\n")
        fresh.replace(self._journal_path)

    def _replay(self, line: bytes, files: set[str]) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return  # the last line of a killed process
        if "gone" in entry:
            self._objects.pop(entry["gone"], None)
            return
        document = entry["put"]
        found = StoredObject(**{**document, "facts": ObjectFacts(**document["facts"])})
        self._generation = max(self._generation, found.generation)
        if found.file in files:
            self._objects[found.name] = found


def _document(found: StoredObject) -> dict[str, Any]:
    """Return an object as the journal holds it; `dataclasses.asdict` takes five times as long."""
    document = {name: getattr(found, name) for name in StoredObject.__slots__}
    facts = {name: getattr(found.facts, name) for name in ObjectFacts.__slots__}
    return {**document, "facts": facts}
