"""The numbers and structures of the NBD protocol that we speak."""

# References: NetworkBlockDevice/nbd doc/proto.md: fixed newstyle negotiation, transmission,
# structured replies, metadata querying, "base:allocation".

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

GREETING = b"NBDMAGICIHAVEOPT"
OPTION_MAGIC = b"IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF

FIXED_NEWSTYLE = 1
NO_ZEROES = 2
ALLOCATION_CONTEXT = b"base:allocation"
ALLOCATION_CONTEXT_ID = 1

MAX_PAYLOAD_BYTES = 32 * 1024 * 1024
"""The largest request that every client may send; larger ones are refused."""
MAX_OPTION_BYTES = 64 * 1024
"""An export name is at most 4 KiB, a query list little more; a client gone mad is cut off."""


class Option(IntEnum):
    """What a client may ask before transmission."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class OptionReply(IntEnum):
    """How an option is answered."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    UNSUPPORTED = 2**31 + 1
    INVALID = 2**31 + 3
    UNKNOWN = 2**31 + 6
    TOO_BIG = 2**31 + 9


class Info(IntEnum):
    """What is told about an export."""

    EXPORT = 0
    BLOCK_SIZE = 3


class TransmissionFlag(IntFlag):
    """What an export can do."""

    HAS_FLAGS = 1
    READ_ONLY = 2
    SEND_FLUSH = 4
    SEND_FUA = 8
    SEND_TRIM = 32
    SEND_WRITE_ZEROES = 64
    SEND_DF = 128
    CAN_MULTI_CONN = 256


class Command(IntEnum):
    """What a client may ask in transmission."""

    READ = 0
    WRITE = 1
    DISCONNECT = 2
    FLUSH = 3
    TRIM = 4
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntFlag):
    """How a command is to be done."""

    FORCE_UNIT_ACCESS = 1
    NO_HOLE = 2
    DO_NOT_FRAGMENT = 4
    REQUEST_ONE = 8


class ChunkKind(IntEnum):
    """The parts of a structured reply."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 2**15 + 1


CHUNK_DONE = 1


class WireError(IntEnum):
    """Errors have the protocol's numbers, not the platform's."""

    PERMISSION = 1
    INPUT_OUTPUT = 5
    INVALID = 22
    NO_SPACE = 28
    TOO_LARGE = 75


class AllocationFlag(IntFlag):
    """States of ``base:allocation``."""

    HOLE = 1
    ZERO = 2


GREETING_FLAGS = struct.Struct(">H")
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">8sII")
OPTION_REPLY = struct.Struct(">QIII")
INFO_EXPORT = struct.Struct(">HQH")
INFO_BLOCK_SIZE = struct.Struct(">HIII")
EXPORT = struct.Struct(">QH")
REQUEST = struct.Struct(">IHHQQI")
SIMPLE_REPLY = struct.Struct(">IIQ")
CHUNK = struct.Struct(">IHHQI")
OFFSET = struct.Struct(">Q")
HOLE = struct.Struct(">QI")
CHUNK_ERROR = struct.Struct(">IH")
LENGTH = struct.Struct(">I")
STATUS = struct.Struct(">II")
EXPORT_FLAGS = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.READ_ONLY
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_DF
    | TransmissionFlag.CAN_MULTI_CONN
)
WRITABLE_FLAGS = (
    TransmissionFlag.HAS_FLAGS
    | TransmissionFlag.SEND_FLUSH
    | TransmissionFlag.SEND_FUA
    | TransmissionFlag.SEND_TRIM
    | TransmissionFlag.SEND_WRITE_ZEROES
    | TransmissionFlag.SEND_DF
    | TransmissionFlag.CAN_MULTI_CONN
)
"""Several connections see one another's writes at once, and a flush covers them all."""
