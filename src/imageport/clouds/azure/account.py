"""One run in one subscription: clients, tags, and the ledger that knows of all that is created."""

from __future__ import annotations

import contextlib
from typing import Final

from imageport.clouds.azure.arm_http import (
    COMPUTE_API,
    COMPUTE_DISKS_API,
    NETWORK_API,
)
from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.names import ArmId, parse_id
from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.intents import Intents
from imageport.clouds.tags import TAG_EXPIRES
from imageport.errors import CloudError, CloudRefused
from imageport.state.ledger import Ledger
from imageport.state.records import LedgerEntry

_TAGGED: Final = {
    "disk": ("Microsoft.Compute/disks", COMPUTE_DISKS_API),
    "snapshot": ("Microsoft.Compute/snapshots", COMPUTE_DISKS_API),
    "instance": ("Microsoft.Compute/virtualMachines", COMPUTE_API),
    "security-group": ("Microsoft.Network/networkSecurityGroups", NETWORK_API),
}
"""Kinds of ledger entries that are resources with tags of their own."""


class AzureAccount(Intents):
    """What every part of the Azure cloud works with; may be used from several threads."""

    def __init__(
        self, settings: AzureSettings, clients: AzureClients, ledger: Ledger, run: str
    ) -> None:
        super().__init__(ledger, settings.scope, settings.site, run, settings.expires_seconds)
        self.settings = settings
        self.clients = clients

    def own(self, text: str, kind: str) -> ArmId:
        """Take the id of one of this account's resources apart.

        Raises:
            ResourceGone: it is no id of this kind.
            CloudRefused: it lies in another subscription. Asked in ours it would look as if it were
                gone, and the catalogue would forget an image that is there and costs money.
        """
        found, needed = parse_id(text, kind), self.settings.subscription_id
        if found.subscription.lower() != needed.lower():
            raise CloudRefused(
                f"Cannot use '{found.name}': it lies in subscription {found.subscription}, the "
                f"target block names {needed}.",
                hint="Keep a block with the old subscription for this target site, or give the "
                "target site in the new subscription a name of its own.",
            )
        return found

    def tag_expiry(self, entry: LedgerEntry, expires: str) -> None:
        """Renew one tag; a resource that is gone is left.

        All tags are sent: whether a PATCH adds to the tags or replaces them differs by provider.
        """
        if entry.kind not in _TAGGED:
            return
        kind, api_version = _TAGGED[entry.kind]
        arm = self.clients.arm
        with contextlib.suppress(CloudError):
            found = arm.get(entry.resource_id, api_version, f"{kind}/read")
            if found is not None:
                tags = dict(found.get("tags") or {}) | {TAG_EXPIRES: expires}
                arm.patch(entry.resource_id, {"tags": tags}, api_version, f"{kind}/write")
