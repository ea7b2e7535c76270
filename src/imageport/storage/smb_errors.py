# References: [MS-ERREF] 2.3.1 NTSTATUS values; [MS-SMB2] 3.2.5 (what a client does with them).
"""What a server's status means to a caller of this project."""

from __future__ import annotations

from imageport.errors import (
    FileLocked,
    FileMissing,
    ImageportError,
    InputError,
    NameTaken,
    ShareFull,
    ShareLoginRefused,
    ShareRefused,
    ShareUnreachable,
    SourceChanged,
)

BUFFER_OVERFLOW = 0x80000005
NO_MORE_FILES = 0x80000006
INVALID_PARAMETER = 0xC000000D
INVALID_DEVICE_REQUEST = 0xC0000010
ACCESS_DENIED = 0xC0000022
BUFFER_TOO_SMALL = 0xC0000023
NOT_SUPPORTED = 0xC00000BB

CANNOT_SPARSE = frozenset({INVALID_PARAMETER, INVALID_DEVICE_REQUEST, NOT_SUPPORTED})
"""Answers of servers and file systems that do not keep holes."""

_Kind = tuple[type[ImageportError], str]

_MEANINGS: dict[int, _Kind] = {
    0xC000000F: (FileMissing, "it does not exist"),  # NO_SUCH_FILE
    0xC0000034: (FileMissing, "it does not exist"),  # OBJECT_NAME_NOT_FOUND
    0xC000003A: (FileMissing, "the folder above it does not exist"),  # OBJECT_PATH_NOT_FOUND
    0xC00000BA: (FileMissing, "it is a folder, not a file"),  # FILE_IS_A_DIRECTORY
    0xC0000103: (FileMissing, "it is a file, not a folder"),  # NOT_A_DIRECTORY
    0xC0000035: (NameTaken, "the name exists"),  # OBJECT_NAME_COLLISION
    0xC0000101: (NameTaken, "the folder is not empty"),  # DIRECTORY_NOT_EMPTY
    0xC0000033: (InputError, "the server does not allow this name"),  # OBJECT_NAME_INVALID
    0xC0000039: (InputError, "the server does not allow this path"),  # OBJECT_PATH_INVALID
    0xC000003B: (InputError, "the server does not allow this path"),  # OBJECT_PATH_SYNTAX_BAD
    0xC0000043: (FileLocked, "somebody else has it open"),  # SHARING_VIOLATION
    0xC0000054: (FileLocked, "somebody else holds a lock in it"),  # FILE_LOCK_CONFLICT
    0xC0000055: (FileLocked, "somebody else holds a lock in it"),  # LOCK_NOT_GRANTED
    0xC0000056: (FileLocked, "it is being deleted"),  # DELETE_PENDING
    0xC000007F: (ShareFull, "no space left"),  # DISK_FULL
    0xC0000044: (ShareFull, "the account's quota is used up"),  # QUOTA_EXCEEDED
    0xC0000011: (SourceChanged, "found its end before what was asked for"),  # END_OF_FILE
    ACCESS_DENIED: (ShareRefused, "the server denies access"),
    0xC00000A2: (ShareRefused, "the volume is read-only"),  # MEDIA_WRITE_PROTECTED
    0xC0000121: (ShareRefused, "the file is marked read-only"),  # CANNOT_DELETE
    0xC00000CC: (ShareRefused, "the server has no such share"),  # BAD_NETWORK_NAME
    0x8000002D: (ShareRefused, "a link on the server leads elsewhere"),  # STOPPED_ON_SYMLINK
    0xC000006D: (ShareLoginRefused, "user or password is wrong"),  # LOGON_FAILURE
    0xC000006A: (ShareLoginRefused, "the password is wrong"),  # WRONG_PASSWORD
    0xC0000064: (ShareLoginRefused, "the user is unknown"),  # NO_SUCH_USER
    0xC000006E: (ShareLoginRefused, "the account is restricted"),  # ACCOUNT_RESTRICTION
    0xC000006F: (ShareLoginRefused, "the account may not log on now"),  # INVALID_LOGON_HOURS
    0xC0000070: (ShareLoginRefused, "the account may not log on from here"),  # INVALID_WORKSTATION
    0xC0000071: (ShareLoginRefused, "the password has expired"),  # PASSWORD_EXPIRED
    0xC0000072: (ShareLoginRefused, "the account is disabled"),  # ACCOUNT_DISABLED
    0xC000015B: (
        ShareLoginRefused,
        "the account may not log on this way",
    ),  # LOGON_TYPE_NOT_GRANTED
    0xC0000193: (ShareLoginRefused, "the account has expired"),  # ACCOUNT_EXPIRED
    0xC0000224: (ShareLoginRefused, "the password must be changed"),  # PASSWORD_MUST_CHANGE
    0xC0000234: (ShareLoginRefused, "the account is locked out"),  # ACCOUNT_LOCKED_OUT
    0xC000005E: (ShareLoginRefused, "the server finds no domain controller"),  # NO_LOGON_SERVERS
    # The session is gone, the request may be fine: connect again.
    0xC00000B5: (ShareUnreachable, "the server timed out"),  # IO_TIMEOUT
    0xC00000C9: (ShareUnreachable, "the share was disconnected"),  # NETWORK_NAME_DELETED
    0xC0000128: (ShareUnreachable, "the server closed the file"),  # FILE_CLOSED
    0xC0000203: (ShareUnreachable, "the server ended the session"),  # USER_SESSION_DELETED
    0xC0000205: (ShareUnreachable, "the server is out of resources"),  # INSUFF_SERVER_RESOURCES
    0xC000020C: (ShareUnreachable, "the connection dropped"),  # CONNECTION_DISCONNECTED
    0xC000020D: (ShareUnreachable, "the connection was reset"),  # CONNECTION_RESET
    0xC0000241: (ShareUnreachable, "the connection was aborted"),  # CONNECTION_ABORTED
    0xC000035C: (ShareUnreachable, "the session expired"),  # NETWORK_SESSION_EXPIRED
}


def error_of_status(status: int, verb: str, subject: str) -> ImageportError:
    """Return the error for an NTSTATUS; one without a meaning here is `ShareRefused`."""
    kind, cause = _MEANINGS.get(status, (ShareRefused, "the server refuses"))
    return kind(f"Cannot {verb} '{subject}': {cause} (status 0x{status:08X}).", status=status)
