"""One managed disk or snapshot: a sparse file, the map of its pages, and what is known of it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from imageport.model import MIB
from imageport.sandbox.azure.disk_errors import wrong_state
from imageport.sandbox.azure.disk_footer import FOOTER_BYTES, export_footer
from imageport.sandbox.azure.disk_knobs import ByteRate
from imageport.sandbox.azure.disk_pages import KeptPageMap
from imageport.sandbox.azure.sas_policy import Policy
from imageport.sandbox.machines.file_extents import clear_at, data_extents, write_at

UPLOADING = ("ReadyToUpload", "ActiveUpload")
_ZEROS = bytes(4 * MIB)  # as long as a page write may be
_UNTOUCHED_NS = 1_000_000_000


@dataclass(slots=True)
class DiskFacts:
    """What is kept of a disk besides its bytes."""

    id: str
    kind: str
    """``disk`` or ``snapshot``."""
    size_bytes: int
    """Without the footer."""
    state: str = "Unattached"
    tier: str = ""
    secret: str = field(default="", repr=False)
    """Key that signs this disk's URLs, hexadecimal."""
    policy: dict[str, Any] | None = None
    refused_revokes: int = 0
    """How often revoking was answered with 409 (knob stuck_upload)."""


class StoredDisk:
    """Used from all request threads: bytes move outside of the lock, state changes inside."""

    def __init__(self, folder: Path, facts: DiskFacts, key: str) -> None:
        self.facts = facts
        self.lock = threading.RLock()
        self.rate = ByteRate()
        self.version = 1
        """Grows with every change of pages: the ETag."""
        self._idle = threading.Condition(self.lock)
        self._busy = 0
        self._facts_path = folder / f"{key}.json"
        self.path = folder / f"{key}.disk"
        self.fd = os.open(self.path, os.O_RDWR)
        self.pages = KeptPageMap(folder / f"{key}.pages")

    @property
    def uploading(self) -> bool:
        """Tell whether the disk waits for its bytes from outside."""
        return self.facts.state in UPLOADING

    @property
    def blob_bytes(self) -> int:
        """Return the length of the page blob behind the disk: a VHD, with its footer."""
        return self.facts.size_bytes + FOOTER_BYTES

    @property
    def policy(self) -> Policy | None:
        """Return the grant that is in force, expired or not."""
        return None if self.facts.policy is None else Policy(**self.facts.policy)

    @contextmanager
    def busy(self) -> Iterator[None]:
        """Keep the disk from being revoked, copied or deleted while bytes move."""
        with self.lock:
            self._busy += 1
        try:
            yield
        finally:
            with self.lock:
                self._busy -= 1
                self._idle.notify_all()

    def wait_until_idle(self) -> None:
        """Wait for the requests under way; call it with the lock held, policy already gone."""
        if not self._idle.wait_for(lambda: self._busy == 0, timeout=60):
            raise wrong_state(self.facts.id, self.facts.state, "change")

    def write(self, offset: int, data: bytes) -> None:
        """Write pages of a disk that is being uploaded."""
        if data == _ZEROS[: len(data)]:
            clear_at(self.fd, offset, offset + len(data))  # written, yet without space
        else:
            write_at(self.fd, data, offset)
        self.pages.add(offset, offset + len(data))
        self.version += 1

    def clear(self, start: int, end: int) -> None:
        """Clear pages: they read as zeros and are no longer listed."""
        self.pages.remove(start, end)
        clear_at(self.fd, start, end)
        self.version += 1

    def read(self, start: int, end: int) -> bytes:
        """Return bytes of the page blob, the footer included."""
        limit = self.blob_bytes if self.uploading else self.facts.size_bytes
        data = os.pread(self.fd, min(end, limit) - start, start) if start < limit else b""
        if end > limit:
            footer = export_footer(self.facts.size_bytes, self.facts.id)
            data += footer[max(0, start - limit) : end - limit]
        return data

    def written(self, start: int, end: int) -> list[tuple[int, int]]:
        """Return the page ranges of the page blob within ``start`` ≤ byte < ``end``."""
        size = self.facts.size_bytes
        if self.uploading or end <= size:
            return self.pages.within(start, end)
        found = self.pages.within(start, size)
        footer = (max(start, size), end)
        if found and found[-1][1] == footer[0]:
            footer = (found.pop()[0], end)
        return [*found, footer]

    def attach(self) -> None:
        """Note that a machine may write to the file from now on."""
        # A time that no write leaves behind: clocks of file systems tick in milliseconds.
        os.utime(self.path, ns=(_UNTOUCHED_NS, _UNTOUCHED_NS))
        self.facts.state = "Attached"
        self.save()

    def detach(self) -> None:
        """Take up what the machine wrote."""
        self.take_up()
        self.facts.state = "Unattached"
        self.save()

    def take_up(self) -> None:
        """Rebuild the map from the file, if a machine wrote to it: pages it trimmed are gone."""
        if self.path.stat().st_mtime_ns != _UNTOUCHED_NS:
            self.pages.replace(data_extents(self.fd, self.facts.size_bytes))

    def end_upload(self) -> None:
        """Take the footer off: what was uploaded is a disk from now on."""
        size = self.facts.size_bytes
        self.pages.remove(size, size + FOOTER_BYTES)
        os.truncate(self.fd, size)

    def save(self) -> None:
        """Write the facts, so that a later start of the service finds the disk."""
        part = self._facts_path.with_suffix(".json.part")
        part.touch(mode=0o600)
        part.write_text(json.dumps(asdict(self.facts)))
        part.rename(self._facts_path)

    def close(self) -> None:
        """Close its files."""
        os.close(self.fd)
        self.pages.close()

    def remove(self) -> None:
        """Close and delete everything of it."""
        self.close()
        self._facts_path.unlink(missing_ok=True)
        for ending in ("disk", "pages"):
            self.path.with_suffix(f".{ending}").unlink(missing_ok=True)


def facts_of(path: Path) -> DiskFacts:
    """Read the facts of a saved disk."""
    return DiskFacts(**json.loads(path.read_text()))
