"""One client of the NBD view: reads, writes and block status in, replies out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from imageport.errors import ImageportError
from imageport.formats import _nbd_protocol as nbd
from imageport.formats._extent_map import ExtentMap
from imageport.formats._nbd_handshake import negotiate
from imageport.formats._nbd_wire import PeerGone, Wire
from imageport.formats.overlay_disk import OverlayDisk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB, ExtentState

_MAX_DESCRIPTORS = 8192
"""64 KiB of block status a reply; the client asks again for the rest."""
_FLAGS = {
    ExtentState.HOLE: nbd.AllocationFlag.HOLE | nbd.AllocationFlag.ZERO,
    ExtentState.ZERO: nbd.AllocationFlag.ZERO,
    ExtentState.DATA: nbd.AllocationFlag(0),
}
_WRITING = {nbd.Command.WRITE, nbd.Command.TRIM, nbd.Command.WRITE_ZEROES}
_WRITING_FLAGS = {
    nbd.Command.WRITE: nbd.CommandFlag.FORCE_UNIT_ACCESS,
    nbd.Command.TRIM: nbd.CommandFlag.FORCE_UNIT_ACCESS,
    # Zeros take no room here whether they are to be a hole or not.
    nbd.Command.WRITE_ZEROES: nbd.CommandFlag.FORCE_UNIT_ACCESS | nbd.CommandFlag.NO_HOLE,
}
_READ_ONLY = (nbd.WireError.PERMISSION, "the disk is read-only")
_PIECE_BYTES = MIB
"""A write of 32 MiB is never in memory as a whole."""


@dataclass(frozen=True, slots=True)
class _Request:
    flags: int
    command: int
    handle: int
    offset: int
    length: int


class NbdSession:
    """Serves one connection until the client leaves; ``failed`` hears of the disk's errors.

    A disk whose ``extents`` are its own, an `OverlayDisk`, may be written.
    """

    def __init__(
        self,
        wire: Wire,
        disk: VirtualDisk,
        extents: ExtentMap | OverlayDisk,
        failed: Callable[[ImageportError], None],
    ) -> None:
        self._wire = wire
        self._disk = disk
        self._extents = extents
        self._writable = extents if isinstance(extents, OverlayDisk) else None
        self._failed = failed
        self._structured = False
        self._allocation = False

    def run(self) -> None:
        """Negotiate and answer requests; returns when the client has gone."""
        try:
            flags = nbd.EXPORT_FLAGS if self._writable is None else nbd.WRITABLE_FLAGS
            agreement = negotiate(self._wire, self._disk.size_bytes, flags)
            self._structured = agreement.structured
            self._allocation = agreement.allocation
            while self._answer():
                pass
        except PeerGone:
            return

    def _answer(self) -> bool:
        fields = nbd.REQUEST.unpack(self._wire.receive(nbd.REQUEST.size))
        magic, *rest = fields
        request = _Request(*rest)
        if magic != nbd.REQUEST_MAGIC or request.command == nbd.Command.DISCONNECT:
            return False
        if request.command in _WRITING:
            return self._answer_writing(request)
        if request.command == nbd.Command.FLUSH:
            self._flush(request)
        elif request.command in {nbd.Command.READ, nbd.Command.BLOCK_STATUS}:
            self._answer_range(request)
        else:
            self._refuse(request, nbd.WireError.INVALID, "unknown command")
        return True

    def _answer_writing(self, request: _Request) -> bool:
        """Answer what writes; a payload that is refused is read all the same, to stay in step."""
        payload = request.length if request.command == nbd.Command.WRITE else 0
        if payload > nbd.MAX_PAYLOAD_BYTES:
            return False
        refused = self._writing_refusal(request)
        if refused is not None or self._writable is None:
            self._wire.discard(payload)
            self._refuse(request, *(refused or _READ_ONLY))
            return True
        try:
            if payload:
                self._write(self._writable, request)
            elif request.command == nbd.Command.TRIM:
                self._writable.trim(request.offset, request.length)
            else:
                self._writable.write_zeroes(request.offset, request.length)
            if request.flags & nbd.CommandFlag.FORCE_UNIT_ACCESS:
                self._writable.flush()
        except ImageportError as error:
            self._fail(request, error)
        else:
            self._done(request)
        return True

    def _writing_refusal(self, request: _Request) -> tuple[nbd.WireError, str] | None:
        if self._writable is None:
            return _READ_ONLY
        known = int(_WRITING_FLAGS[nbd.Command(request.command)])  # a flag's ~ drops unknown bits
        if request.flags & ~known or not request.length:
            return nbd.WireError.INVALID, "unknown flags, or no length"
        if request.offset + request.length > self._disk.size_bytes:
            is_trim = request.command == nbd.Command.TRIM
            code = nbd.WireError.INVALID if is_trim else nbd.WireError.NO_SPACE
            return code, "past the end of the disk"
        return None

    def _write(self, disk: OverlayDisk, request: _Request) -> None:
        """Take the payload in piece by piece; after an error the rest is dropped."""
        at, end = request.offset, request.offset + request.length
        while at < end:
            data = self._wire.receive(min(_PIECE_BYTES, end - at))
            at += len(data)
            try:
                disk.write_at(at - len(data), data)
            except ImageportError as error:
                self._failed(error)  # also when the client does not wait for the answer
                self._wire.discard(end - at)
                raise

    def _flush(self, request: _Request) -> None:
        try:
            if self._writable is not None:
                self._writable.flush()
        except ImageportError as error:
            self._fail(request, error)
        else:
            self._done(request)

    def _fail(self, request: _Request, error: ImageportError) -> None:
        """Report an error of the disk.

        Always as EIO: told that there is no space, QEMU halts its machine and waits for a person.
        """
        self._failed(error)
        self._refuse(request, nbd.WireError.INPUT_OUTPUT, error.message)

    def _answer_range(self, request: _Request) -> None:
        inside = request.offset + request.length <= self._disk.size_bytes
        if not request.length or not inside:
            self._refuse(request, nbd.WireError.INVALID, "past the end of the disk")
        elif request.command == nbd.Command.BLOCK_STATUS:
            self._block_status(request)
        elif request.length > nbd.MAX_PAYLOAD_BYTES:
            self._refuse(request, nbd.WireError.TOO_LARGE, "more than 32 MiB")
        else:
            self._read(request)

    def _block_status(self, request: _Request) -> None:
        if not self._allocation:
            self._refuse(request, nbd.WireError.INVALID, "no metadata context was chosen")
            return
        limit = 1 if request.flags & nbd.CommandFlag.REQUEST_ONE else _MAX_DESCRIPTORS
        body = bytearray(nbd.LENGTH.pack(nbd.ALLOCATION_CONTEXT_ID))
        for extent in self._extents.within(request.offset, request.length):
            body += nbd.STATUS.pack(extent.length_bytes, _FLAGS[extent.state])
            limit -= 1
            if not limit:
                break
        self._chunk(request, nbd.ChunkKind.BLOCK_STATUS, bytes(body), last=True)

    def _read(self, request: _Request) -> None:
        fragmented = self._structured and not request.flags & nbd.CommandFlag.DO_NOT_FRAGMENT
        try:
            if fragmented:
                self._read_in_chunks(request)
                return
            data = self._assembled(request)
        except ImageportError as error:
            self._fail(request, error)
            return
        if self._structured:
            offset = nbd.OFFSET.pack(request.offset)
            self._chunk(request, nbd.ChunkKind.OFFSET_DATA, offset, data, last=True)
        else:
            self._wire.send(nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, request.handle), data)

    def _read_in_chunks(self, request: _Request) -> None:
        """Send data as it comes and holes as holes; the disk reads ahead over all of it."""
        ranges = []
        for extent in self._extents.within(request.offset, request.length):
            if extent.state is ExtentState.DATA:
                ranges.append((extent.offset_bytes, extent.length_bytes))
            else:
                hole = nbd.HOLE.pack(extent.offset_bytes, extent.length_bytes)
                self._chunk(request, nbd.ChunkKind.OFFSET_HOLE, hole)
        for offset, data in self._disk.read_many(ranges):
            self._chunk(request, nbd.ChunkKind.OFFSET_DATA, nbd.OFFSET.pack(offset), data)
        self._done(request)

    def _assembled(self, request: _Request) -> memoryview:
        data = bytearray(request.length)
        found = self._extents.within(request.offset, request.length)
        ranges = [(e.offset_bytes, e.length_bytes) for e in found if e.state is ExtentState.DATA]
        for offset, piece in self._disk.read_many(ranges):
            at = offset - request.offset
            data[at : at + len(piece)] = piece
        return memoryview(data)

    def _chunk(
        self,
        request: _Request,
        kind: nbd.ChunkKind,
        *parts: bytes | memoryview,
        last: bool = False,
    ) -> None:
        length = sum(len(part) for part in parts)
        flags = nbd.CHUNK_DONE if last else 0
        header = nbd.CHUNK.pack(nbd.CHUNK_MAGIC, flags, kind, request.handle, length)
        self._wire.send(header, *parts)

    def _done(self, request: _Request) -> None:
        if self._structured:
            self._chunk(request, nbd.ChunkKind.NONE, last=True)
        else:
            self._wire.send(nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, 0, request.handle))

    def _refuse(self, request: _Request, error: nbd.WireError, why: str) -> None:
        if self._structured:
            text = why.encode()[:4096]
            body = nbd.CHUNK_ERROR.pack(error, len(text)) + text
            self._chunk(request, nbd.ChunkKind.ERROR, body, last=True)
        else:
            reply = nbd.SIMPLE_REPLY.pack(nbd.SIMPLE_REPLY_MAGIC, error, request.handle)
            self._wire.send(reply)
