# References: Azure Resource Manager, "Naming rules and restrictions" (Microsoft.Compute).
"""Names and ids of Azure resources: deterministic, because the name is Azure's idempotency."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.intents import Intent
from imageport.clouds.tags import TAG_ROLE
from imageport.errors import ResourceGone

NAME_CHARACTERS: Final = 80
"""Most of a disk, a snapshot, a machine and a network security group."""
TOKEN_CHARACTERS: Final = 20
"""80 bits of the client token: no two resources of a resource group ever share them."""
DISKS: Final = "Microsoft.Compute/disks"
SNAPSHOTS: Final = "Microsoft.Compute/snapshots"
VIRTUAL_MACHINES: Final = "Microsoft.Compute/virtualMachines"
NETWORK_SECURITY_GROUPS: Final = "Microsoft.Network/networkSecurityGroups"

_ID = re.compile(
    r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
    r"/providers/(?P<type>[A-Za-z.]+/[A-Za-z]+)/(?P<name>[A-Za-z0-9][A-Za-z0-9._-]{0,79})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ArmId:
    """A resource of one provider directly in a resource group."""

    subscription: str
    group: str
    type: str
    """``Microsoft.Compute/disks``."""
    name: str

    def __str__(self) -> str:
        group = f"/subscriptions/{self.subscription}/resourceGroups/{self.group}"
        return f"{group}/providers/{self.type}/{self.name}"


def resource_name(intent: Intent) -> str:
    """Return the name of what an intent makes: the same after a crash, new after a deletion."""
    return f"imageport-{intent.tags[TAG_ROLE]}-{intent.client_token[:TOKEN_CHARACTERS]}"[
        :NAME_CHARACTERS
    ]


def resource_id(settings: AzureSettings, kind: str, name: str) -> str:
    """Return the full id of a resource in the settings' resource group.

    What a list returns gets its id here, too: Azure answers in varying spellings, and the ledger
    and the catalogue compare exactly.
    """
    return f"{settings.group_id}/providers/{kind}/{name}"


def snapshot_of_upload(disk_id: str) -> str:
    """Return the id of the snapshot that an upload disk becomes.

    It follows from the disk's own name, so that whoever has only the disk's id, after a crash and
    after the disk is deleted, finds what it became.
    """
    disk = parse_id(disk_id, DISKS)
    token = disk.name.rsplit("-", maxsplit=1)[-1]
    return str(ArmId(disk.subscription, disk.group, SNAPSHOTS, f"imageport-uploaded-{token}"))


def parse_id(text: str, kind: str = "") -> ArmId:
    """Take a full ARM id apart.

    Raises:
        ResourceGone: it is no id, or of another type than ``kind``: nothing of that name can exist.
    """
    found = _ID.fullmatch(text)
    if found is None or (kind and found["type"].lower() != kind.lower()):
        raise ResourceGone(f"Bad resource id: found '{text[:200]}', needed one of {kind or 'ARM'}.")
    return ArmId(found["subscription"], found["group"], kind or found["type"], found["name"])


def short_location(location: str) -> str:
    """Return ``germanywestcentral`` for ``Germany West Central``, as some answers have it."""
    return location.replace(" ", "").lower()


def same_id(one: str, other: str) -> bool:
    """Tell whether two ids name the same resource: ARM compares them without regard to case."""
    return one.lower() == other.lower()
