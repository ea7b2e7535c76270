# References: Cloud Storage JSON API v1, "Resumable uploads", "Perform resumable uploads".
"""One object written in order through an upload session, which outlives the process that opened it.

Whoever takes it up makes the same bytes again from the beginning; what the session has of them is
not sent twice. The CRC32C of all that was made says at the end whether both halves fit.

The session's URL lets anybody write this one object, for a week, and nothing else. It is kept in an
object beside it, which only those can read who may read and write the whole bucket anyway; in a
state store on a share it would be a secret in the wrong place.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import google_crc32c

from imageport.clouds.gcp.objects import NO_GENERATION, ObjectFacts, Objects
from imageport.errors import CloudUnavailable, ResourceGone, VerificationFailed
from imageport.model import MIB

CHUNK_BYTES: Final = 16 * MIB
"""A multiple of 256 KiB. One stream waits for an answer after each: at 50 ms and 100 MiB/s a third
of the time for 8 MiB, a quarter for 16 MiB; it is held in memory twice."""
NOTE_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class _Note:
    """What is kept of an upload; the promise is made before the last byte is sent."""

    session: str = field(repr=False)
    identity: str
    """What its bytes follow from: of another the session is of no use."""
    promised_bytes: int = 0
    promised_crc32c: int = 0
    content: str = ""
    """Digest of what was made into the object."""


class ArchiveUpload:
    """Appends to one object; for one thread.

    Args:
        objects: Of the bucket.
        key: Of the object.
        note_key: Of the object that the session is kept in.
    """

    def __init__(self, objects: Objects, key: str, note_key: str) -> None:
        self._objects = objects
        self._key = key
        self._note_key = note_key
        self._note: _Note | None = None
        self._buffer = bytearray()
        self._offset = 0
        """Of the buffer's first byte in the object."""
        self._kept = 0
        """Bytes that the session has; at first those of an earlier process."""
        self._in_doubt = False
        """A request failed: nobody knows what the session has."""
        self._checksum = google_crc32c.Checksum()
        self._made: ObjectFacts | None = None
        self.resumed_bytes = 0
        """What an earlier process had sent."""

    @property
    def finished(self) -> bool:
        """Tell whether an earlier process, or this one, wrote the whole object."""
        return self._made is not None

    def open(self, identity: str) -> None:
        """Take up the upload of this identity, or begin it; its first byte is appended next."""
        if not self.take_up(identity):
            self._objects.delete(self._key)
            session = self._objects.open_session(self._key, generation=NO_GENERATION)
            self._write_note(_Note(session, identity))

    def take_up(self, identity: str) -> bool:
        """Take up the upload of this identity; False when there is none (any more)."""
        note = self._read_note()
        if note is None or note.identity != identity:
            return False
        found = self._session_offset(note)
        if found is None:
            return False
        if isinstance(found, ObjectFacts):
            if (found.size_bytes, found.crc32c) != (note.promised_bytes, note.promised_crc32c):
                return False
            self._made = found
        else:
            self._kept = self.resumed_bytes = found
        self._note = note
        return True

    def append(self, data: bytes) -> None:
        """Add bytes to the object's end; nothing is sent yet."""
        self._checksum.update(data)
        self._buffer += data
        self._forget_kept()

    def send(self) -> None:
        """Send what makes whole chunks; after an error a repeated call goes on where it was.

        Raises:
            ResourceGone: the session ended, or lost what it had.
            CloudError: as the store answers; nothing is tried again here.
        """
        while len(self._buffer) >= CHUNK_BYTES:
            self._send_once(CHUNK_BYTES, None)

    def finish(self, content: str) -> None:
        """Send the rest and compare the object with what was made; may be called again.

        Args:
            content: Digest of what was made into the object, for `holds`.

        Raises:
            VerificationFailed: the object holds other bytes; it was deleted.
            CloudError: as for `send`.
        """
        note = self._open_note()
        size = self._offset + len(self._buffer)
        crc32c = int.from_bytes(self._checksum.digest(), "big")
        promised = _Note(note.session, note.identity, size, crc32c, content)
        if note != promised:
            note = promised
            self._write_note(note)
        while self._made is None:
            self.send()
            self._send_once(len(self._buffer), note.promised_bytes)
        made = self._made
        if (made.size_bytes, made.crc32c) != (note.promised_bytes, note.promised_crc32c):
            self._made = None
            self._objects.delete(self._key)
            self._objects.delete(self._note_key)
            raise VerificationFailed(
                f"Bad archive '{self._key}': found {made.size_bytes} bytes of CRC32C "
                f"{made.crc32c:08x}, needed {note.promised_bytes} of {note.promised_crc32c:08x}.",
                hint="Start again: it is sent anew.",
            )

    def holds(self, content: str) -> bool:
        """Tell whether the whole object was made of this content."""
        return self.finished and self._open_note().content == content

    def give_up(self) -> None:
        """End the session; one that is gone, or was never opened, is no error."""
        note = self._note or self._read_note()
        if note is not None and not self.finished:
            self._objects.close_session(note.session, self._key)
        self._note = None

    def _send_once(self, count: int, total: int | None) -> None:
        """Send once from where the session is; ``total`` with the last bytes alone."""
        session = self._open_note().session
        if self._in_doubt:
            self._settle(self._objects.session_offset(session, self._key))
        elif self._made is None:
            before = self._offset
            data = bytes(memoryview(self._buffer)[:count])
            self._in_doubt = True
            self._settle(self._objects.put_chunk(session, before, data, total, self._key))
            if self._made is None and self._offset == before:
                raise CloudUnavailable(f"Cannot write '{self._key}': nothing of it was kept.")

    def _settle(self, found: int | ObjectFacts) -> None:
        """Note what the session has."""
        self._in_doubt = False
        if isinstance(found, ObjectFacts):
            self._made = found
            return
        if found < self._offset:
            raise ResourceGone(
                f"Cannot write '{self._key}': found {found} bytes in its upload session, needed "
                f"{self._offset}."
            )
        self._kept = found
        self._forget_kept()

    def _forget_kept(self) -> None:
        """Drop what the session has, or all when the object is finished."""
        done = len(self._buffer) if self.finished else max(0, self._kept - self._offset)
        count = min(len(self._buffer), done)
        del self._buffer[:count]
        self._offset += count

    def _session_offset(self, note: _Note) -> int | ObjectFacts | None:
        try:
            return self._objects.session_offset(note.session, self._key)
        except ResourceGone:
            # A session is forgotten a week after it ended; the object stays.
            return self._objects.stat(self._key)

    def _open_note(self) -> _Note:
        if self._note is None:
            raise ResourceGone(f"Cannot write '{self._key}': no upload of it is open.")
        return self._note

    def _read_note(self) -> _Note | None:
        try:
            document: Any = json.loads(self._objects.get(self._note_key, NOTE_BYTES))
            note = _Note(**document)
        except (ResourceGone, ValueError, TypeError):
            return None  # without it nobody can go on: the upload begins anew
        # Our token goes where the note says, so that it may say no other place.
        return note if self._objects.is_session(note.session) else None

    def _write_note(self, note: _Note) -> None:
        self._objects.put(self._note_key, json.dumps(asdict(note)).encode())
        self._note = note
