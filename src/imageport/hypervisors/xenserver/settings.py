"""Where a XenServer pool is and who signs in."""

from __future__ import annotations

from dataclasses import dataclass, field

from imageport.errors import InputError

HTTPS_PORT = 443


@dataclass(frozen=True, slots=True, kw_only=True)
class XenServerSettings:
    """One pool: any of its hosts, and a user with the roles of ``docs/xenserver.md``.

    Raises:
        InputError: everything that is wrong, at once.
    """

    host: str
    """Name or address of the coordinator; of another member, which then names the coordinator."""
    username: str
    password: str = field(repr=False)
    port: int = HTTPS_PORT
    """Of every host of the pool; redirections that name none go there, too."""
    thumbprint: str = ""
    """SHA-256 of the host's certificate; of several hosts, all of them, separated by commas."""
    ca_file: str = ""
    """Authorities (PEM) that sign the hosts' certificates; empty for the system's."""
    proxy: str = ""
    """``http://host:port``; the environment's proxies are never used."""

    def __post_init__(self) -> None:
        problems = []
        if not self.host or not self.host.isprintable() or set(self.host) & set("/@?# "):
            problems.append(f"host: found '{self.host}', needed a name or an address")
        if not 0 < self.port < 65536:
            problems.append(f"port: found {self.port}, needed 1 to 65535")
        if not self.username:
            problems.append("username: found none, needed one")
        if problems:
            raise InputError(f"Bad XenServer settings: {'; '.join(problems)}.", problems=problems)
