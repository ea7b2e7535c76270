"""The first half of an NBD session: what is offered and what the client chose."""

from __future__ import annotations

from dataclasses import dataclass

from imageport.formats import _nbd_protocol as nbd
from imageport.formats._nbd_wire import PeerGone, Wire


@dataclass
class Agreement:
    """What server and client agreed on."""

    structured: bool = False
    allocation: bool = False


def negotiate(wire: Wire, size_bytes: int, flags: nbd.TransmissionFlag) -> Agreement:
    """Talk until transmission starts; `PeerGone` when the client leaves instead."""
    return _Negotiation(wire, size_bytes, flags).run()


class _Negotiation:
    def __init__(self, wire: Wire, size_bytes: int, flags: nbd.TransmissionFlag) -> None:
        self._wire = wire
        self._size_bytes = size_bytes
        self._flags = flags
        self._agreement = Agreement()
        self._no_zeroes = False

    def run(self) -> Agreement:
        self._wire.send(nbd.GREETING, nbd.GREETING_FLAGS.pack(nbd.FIXED_NEWSTYLE | nbd.NO_ZEROES))
        (flags,) = nbd.CLIENT_FLAGS.unpack(self._wire.receive(nbd.CLIENT_FLAGS.size))
        self._no_zeroes = bool(flags & nbd.NO_ZEROES)
        if not flags & nbd.FIXED_NEWSTYLE:
            raise PeerGone
        while not self._option():
            pass
        return self._agreement

    def _option(self) -> bool:
        """Answer one option; True when transmission starts."""
        magic, option, length = nbd.OPTION.unpack(self._wire.receive(nbd.OPTION.size))
        if magic != nbd.OPTION_MAGIC:
            raise PeerGone
        if length > nbd.MAX_OPTION_BYTES:
            self._wire.discard(length)
            self._reply(option, nbd.OptionReply.TOO_BIG)
            return False
        data = self._wire.receive(length)
        if option == nbd.Option.EXPORT_NAME:
            padding = b"" if self._no_zeroes else bytes(124)
            self._wire.send(nbd.EXPORT.pack(self._size_bytes, self._flags), padding)
            return True
        if option == nbd.Option.ABORT:
            self._reply(option, nbd.OptionReply.ACK)
            raise PeerGone
        if option in {nbd.Option.GO, nbd.Option.INFO}:
            return self._info(option, data) and option == nbd.Option.GO
        if option == nbd.Option.LIST:
            self._list(data)
        elif option == nbd.Option.STRUCTURED_REPLY:
            self._structured(data)
        elif option in {nbd.Option.SET_META_CONTEXT, nbd.Option.LIST_META_CONTEXT}:
            self._contexts(option, data)
        else:
            self._reply(option, nbd.OptionReply.UNSUPPORTED)
        return False

    def _info(self, option: int, data: bytes) -> bool:
        # Any export name is ours: one socket serves one disk.
        if len(data) < 6 or int.from_bytes(data[:4], "big") > len(data) - 6:
            self._reply(option, nbd.OptionReply.INVALID)
            return False
        export = nbd.INFO_EXPORT.pack(nbd.Info.EXPORT, self._size_bytes, self._flags)
        sizes = (1, 64 * 1024, nbd.MAX_PAYLOAD_BYTES)
        block_size = nbd.INFO_BLOCK_SIZE.pack(nbd.Info.BLOCK_SIZE, *sizes)
        self._reply(option, nbd.OptionReply.INFO, export)
        self._reply(option, nbd.OptionReply.INFO, block_size)
        self._reply(option, nbd.OptionReply.ACK)
        return True

    def _list(self, data: bytes) -> None:
        if data:
            self._reply(nbd.Option.LIST, nbd.OptionReply.INVALID)
            return
        self._reply(nbd.Option.LIST, nbd.OptionReply.SERVER, nbd.LENGTH.pack(0))
        self._reply(nbd.Option.LIST, nbd.OptionReply.ACK)

    def _structured(self, data: bytes) -> None:
        if data:
            self._reply(nbd.Option.STRUCTURED_REPLY, nbd.OptionReply.INVALID)
            return
        self._agreement.structured = True
        self._reply(nbd.Option.STRUCTURED_REPLY, nbd.OptionReply.ACK)

    def _contexts(self, option: int, data: bytes) -> None:
        queries = _context_queries(data)
        if queries is None or not self._agreement.structured:
            self._reply(option, nbd.OptionReply.INVALID)
            return
        setting = option == nbd.Option.SET_META_CONTEXT
        # A list without queries asks for all; ``base:`` asks for the namespace.
        everything = not setting and (not queries or b"base:" in queries)
        chosen = everything or nbd.ALLOCATION_CONTEXT in queries
        if setting:
            self._agreement.allocation = chosen
        if chosen:
            number = nbd.LENGTH.pack(nbd.ALLOCATION_CONTEXT_ID if setting else 0)
            context = number + nbd.ALLOCATION_CONTEXT
            self._reply(option, nbd.OptionReply.META_CONTEXT, context)
        self._reply(option, nbd.OptionReply.ACK)

    def _reply(self, option: int, kind: nbd.OptionReply, data: bytes = b"") -> None:
        header = nbd.OPTION_REPLY.pack(nbd.OPTION_REPLY_MAGIC, option, kind, len(data))
        self._wire.send(header + data)


def _context_queries(data: bytes) -> list[bytes] | None:
    """Return the queries of a metadata option; None when it is malformed."""
    fields: list[bytes] = []
    at = 0

    def text() -> bytes | None:
        nonlocal at
        if at + 4 > len(data):
            return None
        length = int.from_bytes(data[at : at + 4], "big")
        at += 4 + length
        return data[at - length : at] if at <= len(data) else None

    if text() is None or at + 4 > len(data):
        return None
    count = int.from_bytes(data[at : at + 4], "big")
    at += 4
    if count > len(data) // 4:
        return None
    for _ in range(count):
        query = text()
        if query is None:
            return None
        fields.append(query)
    return fields if at == len(data) else None
