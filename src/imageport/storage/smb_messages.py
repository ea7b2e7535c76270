# References: [MS-SMB2] 2.2.13-2.2.41 requests; [MS-FSCC] 2.3 control codes, 2.4 file information,
# 2.5.4 volume information.
"""The requests a folder and its files send, and how their answers are read."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from smbprotocol.ioctl import (  # type: ignore[import-untyped]
    SMB2IOCTLRequest,
    SMB2IOCTLResponse,
)
from smbprotocol.open import (  # type: ignore[import-untyped]
    SMB2CloseRequest,
    SMB2CreateRequest,
    SMB2CreateResponse,
    SMB2FlushRequest,
    SMB2QueryDirectoryRequest,
    SMB2QueryDirectoryResponse,
    SMB2QueryInfoRequest,
    SMB2QueryInfoResponse,
    SMB2ReadRequest,
    SMB2SetInfoRequest,
    SMB2WriteRequest,
    SMB2WriteResponse,
)

from imageport.errors import ShareError
from imageport.storage.folder import FileStat
from imageport.storage.smb_signature import HEADER_BYTES

# [MS-SMB2] 2.2.13 and [MS-FSCC] 2.6
ACCESS_READ = 0x80000000  # GENERIC_READ
ACCESS_READ_WRITE = 0xC0000000  # GENERIC_READ | GENERIC_WRITE
ACCESS_DELETE = 0x00010080  # DELETE | FILE_READ_ATTRIBUTES
ACCESS_LIST = 0x00000081  # FILE_LIST_DIRECTORY | FILE_READ_ATTRIBUTES
ACCESS_ASK = 0x00000080  # FILE_READ_ATTRIBUTES
ACCESS_SET = 0x00000180  # FILE_READ_ATTRIBUTES | FILE_WRITE_ATTRIBUTES
SHARE_NOTHING, SHARE_READ, SHARE_ALL = 0, 1, 7
OPEN, CREATE, OPEN_IF = 1, 2, 3
IS_FOLDER, IS_FILE, DELETE_ON_CLOSE = 0x1, 0x40, 0x1000

_ATTRIBUTE_NORMAL, _ATTRIBUTE_DIRECTORY = 0x80, 0x10
_IMPERSONATION = 2
_OUTPUT_BYTES = 65536
LEAST_WINDOW_BYTES = 1024 * 1024
"""The ranges of 1 MiB fit into any answer: with 4 KiB clusters there are at most 128."""
_INFO_FILE, _INFO_VOLUME = 1, 2
_READ_ANSWER_SIZE, _READ_FIXED_BYTES = 17, 16
_BASIC, _RENAME, _ALL, _END_OF_FILE, _FULL_SIZE = 4, 10, 18, 20, 7
_DIRECTORY = 1
_SET_SPARSE, _QUERY_ALLOCATED_RANGES = 0x000900C4, 0x000940CF
_EPOCH_100NS = 116_444_736_000_000_000  # 1970 counted from 1601, [MS-DTYP] 2.3.3


@dataclass(frozen=True, slots=True)
class OpenHow:
    """Access, sharing, disposition and options of one open."""

    access: int
    share: int = SHARE_ALL
    disposition: int = OPEN
    options: int = IS_FILE


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What FileAllInformation tells."""

    size_bytes: int
    last_write_ns: int
    change_ns: int
    file_id: int
    is_folder: bool


def create_request(path: str, how: OpenHow) -> Any:
    """Return a CREATE; it asks for no oplock, so nothing is cached on this side."""
    request = SMB2CreateRequest()
    request["requested_oplock_level"] = 0
    request["impersonation_level"] = _IMPERSONATION
    request["desired_access"] = how.access
    request["file_attributes"] = 0 if how.options & IS_FOLDER else _ATTRIBUTE_NORMAL
    request["share_access"] = how.share
    request["create_disposition"] = how.disposition
    request["create_options"] = how.options
    request["buffer_path"] = path.encode("utf-16-le") or b"\0\0"
    return request


def handle_of(answer: Any) -> bytes:
    """Return the file id of a CREATE's answer."""
    return bytes(_unpacked(SMB2CreateResponse(), answer)["file_id"].get_value())


def close_request(handle: bytes) -> Any:
    """Return a CLOSE."""
    request = SMB2CloseRequest()
    request["file_id"] = handle
    return request


def flush_request(handle: bytes) -> Any:
    """Return a FLUSH."""
    request = SMB2FlushRequest()
    request["file_id"] = handle
    return request


def read_request(handle: bytes, offset: int, length: int) -> Any:
    """Return a READ."""
    request = SMB2ReadRequest()
    request["padding"] = b"\x50"
    request["length"] = length
    request["offset"] = offset
    request["file_id"] = handle
    return request


def read_bytes_of(answer: Any) -> bytes:
    """Return what a READ brought ([MS-SMB2] 2.2.20); the offset counts from the message's start.

    By hand, because a structure of smbprotocol's copies the data once more.
    """
    body = answer["data"].get_value()
    size, offset, length = struct.unpack_from("<HBxI", body)
    start = offset - HEADER_BYTES
    if size != _READ_ANSWER_SIZE or not _READ_FIXED_BYTES <= start <= len(body) - length:
        raise ShareError(
            f"Bad answer: found data at {offset}+{length}, needed it within "
            f"{HEADER_BYTES + len(body)} bytes."
        )
    return bytes(body[start : start + length])


def write_request(handle: bytes, offset: int, data: bytes) -> Any:
    """Return a WRITE."""
    request = SMB2WriteRequest()
    request["length"] = len(data)
    request["offset"] = offset
    request["file_id"] = handle
    request["buffer"] = data
    return request


def written_of(answer: Any) -> int:
    """Return how many bytes a WRITE wrote."""
    return int(_unpacked(SMB2WriteResponse(), answer)["count"].get_value())


def ask_file(handle: bytes) -> Any:
    """Return a QUERY_INFO for FileAllInformation."""
    return _query_info(handle, _INFO_FILE, _ALL)


def ask_volume(handle: bytes) -> Any:
    """Return a QUERY_INFO for FileFsFullSizeInformation."""
    return _query_info(handle, _INFO_VOLUME, _FULL_SIZE)


def facts_of(answer: Any) -> FileFacts:
    """Read FileAllInformation ([MS-FSCC] 2.4.2) up to the file id."""
    body = _information(answer)
    _, _, written, changed, attributes = struct.unpack_from("<QQQQI", body, 0)
    (size,) = struct.unpack_from("<Q", body, 48)
    (file_id,) = struct.unpack_from("<Q", body, 64)
    is_folder = bool(attributes & _ATTRIBUTE_DIRECTORY)
    return FileFacts(size, _unix_ns(written), _unix_ns(changed), file_id, is_folder)


def free_bytes_of(answer: Any) -> int:
    """Read FileFsFullSizeInformation ([MS-FSCC] 2.5.4): what this caller may still use."""
    _, units, _, sectors, sector_bytes = struct.unpack_from("<QQQII", _information(answer))
    return int(units * sectors * sector_bytes)


def rename_to(handle: bytes, path: str, *, replace: bool) -> Any:
    """Return a SET_INFO with FileRenameInformation ([MS-FSCC] 2.4.42.2)."""
    name = path.encode("utf-16-le")
    body = struct.pack("<B7xQI", replace, 0, len(name)) + name
    # Windows wants at least the 24 bytes of the structure, also for names of one letter.
    return _set_info(handle, _RENAME, body.ljust(24, b"\0"))


def set_last_write_to(handle: bytes, last_write_ns: int) -> Any:
    """Return a SET_INFO with FileBasicInformation ([MS-FSCC] 2.4.7); 0 leaves a field alone."""
    written = last_write_ns // 100 + _EPOCH_100NS
    return _set_info(handle, _BASIC, struct.pack("<QQQQII", 0, 0, written, 0, 0, 0))


def set_end_to(handle: bytes, size_bytes: int) -> Any:
    """Return a SET_INFO with FileEndOfFileInformation."""
    return _set_info(handle, _END_OF_FILE, struct.pack("<Q", size_bytes))


def list_request(handle: bytes) -> Any:
    """Return a QUERY_DIRECTORY; the next one goes on where this one ended."""
    request = SMB2QueryDirectoryRequest()
    request["file_information_class"] = _DIRECTORY
    request["file_id"] = handle
    request["output_buffer_length"] = _OUTPUT_BYTES
    request["buffer"] = "*".encode("utf-16-le")
    return request


def entries_of(answer: Any) -> list[FileStat]:
    """Read FileDirectoryInformation entries ([MS-FSCC] 2.4.10) without '.' and '..'."""
    body = bytes(_unpacked(SMB2QueryDirectoryResponse(), answer)["buffer"].get_value())
    found, position = [], 0
    while True:
        step, _, _, _, written, _, size, _, attributes, length = struct.unpack_from(
            "<IIQQQQQQII", body, position
        )
        name = body[position + 64 : position + 64 + length].decode("utf-16-le", "replace")
        is_folder = bool(attributes & _ATTRIBUTE_DIRECTORY)
        if name not in {".", ".."}:
            found.append(FileStat(name, 0 if is_folder else size, _unix_ns(written), is_folder))
        if not step:
            return found
        position += step


def set_sparse_request(handle: bytes) -> Any:
    """Return an IOCTL with FSCTL_SET_SPARSE ([MS-FSCC] 2.3.69)."""
    return _control(handle, _SET_SPARSE, b"\x01", 0)


def ranges_request(handle: bytes, offset: int, length: int) -> Any:
    """Return an IOCTL with FSCTL_QUERY_ALLOCATED_RANGES ([MS-FSCC] 2.3.51)."""
    body = struct.pack("<QQ", offset, length)
    return _control(handle, _QUERY_ALLOCATED_RANGES, body, _OUTPUT_BYTES)


def ranges_of(answer: Any) -> list[tuple[int, int]]:
    """Return (offset, length) pairs."""
    body = bytes(_unpacked(SMB2IOCTLResponse(), answer)["buffer"].get_value())
    return [struct.unpack_from("<QQ", body, at) for at in range(0, len(body) - 15, 16)]


def _query_info(handle: bytes, kind: int, information: int) -> Any:
    request = SMB2QueryInfoRequest()
    request["info_type"] = kind
    request["file_info_class"] = information
    request["output_buffer_length"] = _OUTPUT_BYTES
    request["file_id"] = handle
    return request


def _set_info(handle: bytes, information: int, body: bytes) -> Any:
    request = SMB2SetInfoRequest()
    request["info_type"] = _INFO_FILE
    request["file_info_class"] = information
    request["file_id"] = handle
    request["buffer"] = body
    return request


def _control(handle: bytes, code: int, body: bytes, output_bytes: int) -> Any:
    request = SMB2IOCTLRequest()
    request["ctl_code"] = code
    request["file_id"] = handle
    request["max_output_response"] = output_bytes
    request["flags"] = 1  # SMB2_0_IOCTL_IS_FSCTL
    request["buffer"] = body
    return request


def _information(answer: Any) -> bytes:
    return bytes(_unpacked(SMB2QueryInfoResponse(), answer)["buffer"].get_value())


def _unpacked(structure: Any, answer: Any) -> Any:
    structure.unpack(answer["data"].get_value())
    return structure


def _unix_ns(windows_time: int) -> int:
    return max(0, windows_time - _EPOCH_100NS) * 100
