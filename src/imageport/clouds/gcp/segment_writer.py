# References: Cloud Storage XML API, "PUT object", "Request headers"; RFC 1951; UEFI 2.10, 5.3.2.
"""Runs inside a machine behind the text of `vm_bootstrap`: standard library only, no imageport.

Google lets nobody read a disk by blocks. This machine has the prepared disk attached read-only,
hashes every block, and writes those that the bucket has not: each deflated by itself, named by its
SHA-256. Its token can create objects in one folder and do nothing else.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import queue
import random
import re
import struct
import threading
import time
import urllib.request
import uuid
import zlib
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote, urlsplit

from imageport.clouds.vm_bootstrap import fetch, find_disk, put, say

BLOCK_BYTES = 512 * 1024
DIGEST_BYTES = 32
ZERO_BLOCK = bytes(BLOCK_BYTES)
NO_DIGEST = bytes(DIGEST_BYTES)
"""In the list of digests: the block holds zeros."""
WRITERS = 16
"""A put takes 50 ms and more, almost all of it waiting; two processors deflate 150 MiB/s."""
WAITING_BLOCKS = 32
PUT_SECONDS = 600.0
"""How long one block is tried."""
GRANT_SECONDS = 900.0
"""How long is waited for a new token: a worker that was killed comes back within this time."""
GRANT_PAUSE = 3.0
PASSES = {408, 429, 500, 502, 503, 504}


def write_segments_of_disk(setup: dict[str, Any], work: Path) -> None:
    """Write the blocks of the disk, their digests and a report."""
    told = setup["known"]
    known = digests_in(fetch(told["url"], told["sha256"], work / "known").read_bytes())
    device = find_disk(setup["devices"], setup["device_seconds"])
    with device.open("rb", buffering=0) as disk:
        require_disk(disk, setup["disk_guid"])
        writer = SegmentWriter(setup, work, known)
        digests = writer.write_all(disk)
    packed = zlib.compress(digests, 1)
    put(setup["digests_url"], packed, setup["put_headers"])
    report = {
        "size_bytes": writer.size_bytes,
        "digests_sha256": hashlib.sha256(packed).hexdigest(),
        "written": writer.written,
        "written_bytes": writer.written_bytes,
    }
    (work / "report.json").write_text(json.dumps(report))


def digests_in(data: bytes) -> set[bytes]:
    """Take a list of digests apart."""
    return {data[at : at + DIGEST_BYTES] for at in range(0, len(data), DIGEST_BYTES)}


def require_disk(disk: BinaryIO, guid: str) -> None:
    """Refuse another disk than the job's; one without a partition table has no identity."""
    found = disk_identity(disk)
    if found and found != guid.strip("{}").lower():
        raise ValueError(f"bad disk: found '{found}', the job is for '{guid}'")


def disk_identity(disk: BinaryIO) -> str:
    """Return the GUID of a GPT disk, ``mbr:`` and the signature of an MBR disk, or nothing."""
    disk.seek(0)
    head = disk.read(1024)
    if len(head) < 1024 or head[510:512] != b"\x55\xaa":
        return ""
    if 0xEE not in (head[446 + 16 * at + 4] for at in range(4)):
        return f"mbr:{struct.unpack_from('<I', head, 440)[0]:08x}"
    return str(uuid.UUID(bytes_le=head[568:584])) if head[512:520] == b"EFI PART" else "damaged"


class Grant:
    """The token of the moment, which the waiting worker renews in one object."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._token = ""
        self._gave_up = False
        """Whoever waited behind the one that gave up has waited as long."""
        self._lock = threading.Lock()

    def token(self, refused: str = "") -> str:
        """Return a token; with ``refused`` another one than that, as soon as there is one."""
        with self._lock:
            end = time.monotonic() + GRANT_SECONDS
            while self._token == refused:
                self._token = self._fetched() or refused
                if self._token != refused:
                    break
                if self._gave_up or time.monotonic() > end:
                    self._gave_up = True
                    raise TimeoutError(f"no new token after {GRANT_SECONDS:.0f} s")
                time.sleep(GRANT_PAUSE)
            return self._token

    def _fetched(self) -> str:
        """Return the token that lies there; nothing when it cannot be fetched now."""
        try:
            with urllib.request.urlopen(self._url, timeout=60) as answer:  # noqa: S310 - signed URL
                return str(json.loads(answer.read())["token"])
        except (OSError, ValueError, KeyError, http.client.HTTPException):
            return ""  # their texts may show the URL, which is a secret


class SegmentWriter:
    """Reads a disk once and writes what is new of it, several blocks at a time."""

    def __init__(self, setup: dict[str, Any], work: Path, known: set[bytes]) -> None:
        self._work = work
        self._seen = known
        """Digests that are there, or will be."""
        parts = urlsplit(setup["endpoint"])
        self._secure = parts.scheme == "https"
        self._host = parts.netloc
        self._folder = f"/{setup['bucket']}/{setup['folder']}"
        self._headers = dict(setup["put_headers"])
        self._grant = Grant(setup["grant_url"])
        self._blocks: queue.Queue[tuple[int, bytes] | None] = queue.Queue(WAITING_BLOCKS)
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self._digests = bytearray()
        self.size_bytes = 0
        self.written = 0
        self.written_bytes = 0

    def write_all(self, disk: BinaryIO) -> bytes:
        """Return the digests of all blocks, in order, once all that is new is written."""
        self.size_bytes = disk.seek(0, os.SEEK_END)
        disk.seek(0)
        count = -(-self.size_bytes // BLOCK_BYTES)
        self._digests = bytearray(count * DIGEST_BYTES)
        threads = [threading.Thread(target=self._work_off, daemon=True) for _ in range(WRITERS)]
        for thread in threads:
            thread.start()
        for index in range(count):
            data = read_block(disk, min(BLOCK_BYTES, self.size_bytes - index * BLOCK_BYTES))
            if self._failure is not None:
                break
            if data != ZERO_BLOCK:
                self._blocks.put((index, data))
            if index * 20 // count != (index - 1) * 20 // count:
                say(self._work, f"block {index} of {count}, {self.written} written")
        for _ in threads:
            self._blocks.put(None)
        for thread in threads:
            thread.join()
        if self._failure is not None:
            raise self._failure
        say(self._work, f"all {count} blocks read, {self.written} written")
        return bytes(self._digests)

    def _work_off(self) -> None:
        connection = self._connect()
        while True:
            item = self._blocks.get()
            if item is None:
                connection.close()
                return
            if self._failure is None:  # else the queue is emptied, so that nobody waits
                try:
                    self._take(connection, *item)
                except BaseException as error:
                    self._failure = error

    def _take(self, connection: http.client.HTTPConnection, index: int, data: bytes) -> None:
        digest = hashlib.sha256(data).digest()
        self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES] = digest
        with self._lock:
            if digest in self._seen:
                return
            self._seen.add(digest)
        deflated = deflate(data)
        self._put(connection, digest.hex(), deflated, f"{zlib.crc32(data):08x}")
        with self._lock:
            self.written += 1
            self.written_bytes += len(deflated)

    def _put(
        self, connection: http.client.HTTPConnection, name: str, body: bytes, crc32: str
    ) -> None:
        """Write one object unless it is there; the token appears in no message."""
        headers = {
            **self._headers,
            "Content-Type": "application/octet-stream",
            "Content-MD5": base64.b64encode(hashlib.md5(body).digest()).decode(),  # noqa: S324
            "x-goog-if-generation-match": "0",
            "x-goog-meta-crc32": crc32,
        }
        token = self._grant.token()
        end, pause, cause = time.monotonic() + PUT_SECONDS, 0.5, ""
        while time.monotonic() < end:
            headers["Authorization"] = f"Bearer {token}"
            try:
                connection.request("PUT", quote(self._folder + name), body, headers)
                answer = connection.getresponse()
                status, text = answer.status, answer.read().decode(errors="replace")
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                status, text, cause = 503, "", type(error).__name__
            if status in {200, 201} or is_there(status, text):
                return
            if status == 401:
                token = self._grant.token(refused=token)
                end = time.monotonic() + PUT_SECONDS  # waiting for it was no try
                continue
            cause = cause or f"HTTP {status} {error_code(text)}"
            if status not in PASSES and "BadDigest" not in text:
                raise ConnectionError(f"cannot put block {name}: {cause}")
            time.sleep(random.uniform(0, pause))  # noqa: S311 - jitter
            pause, cause = min(pause * 2, 16.0), ""
        raise TimeoutError(f"cannot put block {name}: not taken after {PUT_SECONDS:.0f} s")

    def _connect(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(self._host, timeout=60)


def read_block(disk: BinaryIO, length: int) -> bytes:
    """Return the next bytes of a disk, filled up with zeros to a whole block."""
    data = b""
    while len(data) < length:
        more = disk.read(length - len(data))
        if not more:
            raise OSError(f"the disk ends {length - len(data)} bytes early")
        data = data + more if data else more
    return data.ljust(BLOCK_BYTES, b"\0")


def deflate(data: bytes) -> bytes:
    """Return a block deflated by itself: no header, full flush at the end, no final block."""
    stream = zlib.compressobj(1, zlib.DEFLATED, -15)
    return stream.compress(data) + stream.flush(zlib.Z_FULL_FLUSH)


def is_there(status: int, text: str) -> bool:
    """Tell whether the object exists: the condition says so, or that replacing it is forbidden."""
    return status == 412 or (status == 403 and "storage.objects.delete" in text)


def error_code(text: str) -> str:
    """Return the word in the store's answer that says what is wrong."""
    found = re.search(r"<Code>(\w+)</Code>", text)
    return found[1] if found else ""
