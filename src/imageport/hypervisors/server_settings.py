"""Where a hypervisor's management is, as whom it is asked, and by what its hosts are trusted."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from imageport.errors import InputError
from imageport.hypervisors.tls_trust import TlsTrust, proxy_address

HTTPS_PORT: Final = 443
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+(%[A-Za-z0-9]+)?\]?")


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """One connection; the password is in no text of ours.

    ``thumbprint`` is the SHA-256 of the server's certificate, ``ca_file`` a PEM file of private
    authorities; with neither, the system's authorities decide. ``proxy`` is ``http://host:port``;
    the environment's proxies are never used.

    Raises:
        InputError: everything that is wrong with them, at once.
    """

    host: str
    port: int = HTTPS_PORT
    username: str = ""
    password: str = field(default="", repr=False)
    thumbprint: str = ""
    ca_file: str = ""
    proxy: str = ""

    def __post_init__(self) -> None:
        problems = []
        if not _HOST.fullmatch(self.host):
            problems.append(f"Bad host: found '{self.host}', needed a name or an address.")
        if not 0 < self.port < 65536:
            problems.append(f"Bad port: found {self.port}, needed 1 to 65535.")
        if not self.username:
            problems.append("Bad username: found none, needed one.")
        try:
            if self.proxy:
                proxy_address(self.proxy)
            self.trust()
        except InputError as error:
            problems.append(error.message)
        if problems:
            raise InputError(" ".join(problems), problems=problems)

    @property
    def address(self) -> str:
        """Return the host as `http.client` and URLs without brackets have it."""
        return self.host.strip("[]")

    @property
    def location(self) -> str:
        """Return where it is, for messages."""
        shown = f"[{self.address}]" if ":" in self.address else self.address
        return shown if self.port == HTTPS_PORT else f"{shown}:{self.port}"

    def trust(self) -> TlsTrust:
        """Return the rule for the server's certificate."""
        return TlsTrust(self.thumbprint, self.ca_file)
