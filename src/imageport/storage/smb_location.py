"""Where a share is and who asks: parsed and checked before any connection is tried."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from imageport.errors import InputError

SMB_PORT = 445
_FORM = "smb://host[:port]/share[/folder]"


class SmbAuth(StrEnum):
    """How the client proves who it is."""

    NEGOTIATE = "negotiate"
    NTLM = "ntlm"
    KERBEROS = "kerberos"


@dataclass(frozen=True, slots=True)
class SmbCredentials:
    """User and password of a share, and how strict the client is.

    ``encrypt`` demands encryption; a server that demands it gets it anyway. Without
    ``require_signing`` the server decides about signing: what is neither signed nor encrypted can
    be rewritten on its way. An empty user is the one of the machine's Kerberos ticket.
    """

    username: str
    password: str = field(repr=False)
    domain: str = ""
    auth: str = SmbAuth.NEGOTIATE.value
    encrypt: bool = False
    require_signing: bool = True

    def __post_init__(self) -> None:
        known = [auth.value for auth in SmbAuth]
        if self.auth not in known:
            raise InputError(f"Bad SMB auth: found {self.auth!r}, needed one of {known}.")

    @property
    def account(self) -> str:
        """Return the account as the server wants it."""
        return f"{self.domain}\\{self.username}" if self.domain else self.username


@dataclass(frozen=True, slots=True)
class SmbLocation:
    """A folder of a share; ``folder`` is empty for the share's root, parts separated by '/'."""

    host: str
    share: str
    folder: str = ""
    port: int = SMB_PORT

    @classmethod
    def parse(cls, text: str) -> Self:
        r"""Read ``smb://host[:port]/share[/folder]`` or ``\\host\share[\folder]``."""
        plain = text.replace("\\", "/")
        if "@" in plain.split("//", 1)[-1].split("/", 1)[0]:
            # The text may hold a password, so it is not repeated.
            raise InputError(f"Bad share: found a user in the address, needed {_FORM} without.")
        found = re.fullmatch(
            r"(?:smb:)?//(?P<host>\[[0-9A-Fa-f:.]+\]|[^/:]+)(?::(?P<port>\d{1,5}))?"
            r"/(?P<share>[^/]+)(?P<folder>(?:/[^/]+)*)/?",
            plain,
            flags=re.IGNORECASE,
        )
        if found is None:
            raise InputError(f"Bad share: found {text!r}, needed {_FORM}.")
        port = int(found["port"] or SMB_PORT)
        if not 0 < port < 65536:
            raise InputError(f"Bad share: found port {port}, needed 1 to 65535.")
        folder = found["folder"].strip("/")
        if any(part in {".", ".."} for part in folder.split("/")):
            raise InputError(f"Bad share: found '.' or '..' in {text!r}, needed plain names.")
        return cls(found["host"].strip("[]"), found["share"], folder, port)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == SMB_PORT else f":{self.port}"
        return f"smb://{host}{port}/{self.share}" + (f"/{self.folder}" if self.folder else "")
