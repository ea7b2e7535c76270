# References: Compute Engine REST v1, "regions.get".
"""The zones of the settings' region: what one zone's target made is swept by every other's."""

from __future__ import annotations

from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.error_mapping import asked
from imageport.clouds.waiting import retried


def zones_of_region(account: GcpAccount) -> list[str]:
    """Return the names of all zones of the region."""
    settings = account.settings

    def ask() -> list[str]:
        with asked("compute.regions.get", settings.region):
            found = account.clients.regions.get(project=settings.project, region=settings.region)
        return [zone.rsplit("/", maxsplit=1)[-1] for zone in found.zones]

    return retried(ask)
