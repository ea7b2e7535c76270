"""Where a XenServer pool is and who signs in."""

from __future__ import annotations

from dataclasses import dataclass

from imageport.hypervisors.server_settings import ServerSettings
from imageport.hypervisors.xenserver.pool_trust import PoolTrust


@dataclass(frozen=True, slots=True)
class XenServerSettings(ServerSettings):
    """One pool: any of its hosts, and a user with the roles of ``docs/xenserver.md``.

    ``host`` is the coordinator or another member, which then names the coordinator. ``port`` is
    that of every host; redirections that name none go there, too. ``thumbprint`` holds those of
    all hosts, separated by commas.
    """

    def trust(self) -> PoolTrust:
        """Return the one rule for the certificates of all hosts."""
        return PoolTrust(self.thumbprint, self.ca_file)
