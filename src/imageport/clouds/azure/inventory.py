"""What carries our tags in the resource group, and how each kind is deleted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from imageport.cloud import CloudResource
from imageport.clouds.azure.access_grant import KIND as ACCESS
from imageport.clouds.azure.access_grant import access_id, end_access
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.arm_http import NETWORK_API
from imageport.clouds.azure.disks import delete_disk
from imageport.clouds.azure.error_mapping import asked
from imageport.clouds.azure.job_folder import delete_prefix, list_blobs
from imageport.clouds.azure.names import (
    DISKS,
    NETWORK_SECURITY_GROUPS,
    SNAPSHOTS,
    VIRTUAL_MACHINES,
    resource_id,
    short_location,
)
from imageport.clouds.azure.network import delete_group, delete_interface
from imageport.clouds.azure.snapshots import delete_snapshot
from imageport.clouds.azure.virtual_machines import delete_machine
from imageport.clouds.intents import token_of
from imageport.clouds.job_names import ROOT, job_folders, require_own_folder
from imageport.clouds.own_resources import require_own
from imageport.clouds.tags import TAG_ROLE, TAG_SITE, TAG_TOKEN
from imageport.errors import CloudRefused

NETWORK_INTERFACES: Final = "Microsoft.Network/networkInterfaces"
OPEN_STATES: Final = {"ActiveUpload": "Write", "ActiveSAS": "Read", "ActiveSASFrozen": "Read"}
"""States of a disk or snapshot that a signed URL opens, and what for."""


def list_ours(account: AzureAccount, site: str) -> list[CloudResource]:
    """Return every tagged resource of the site, and the access given out to any of them."""
    # Without the container the ledger's job folders would look as if they were gone.
    account.settings.require("job_container_url")
    compute, group = account.clients.compute, account.settings.resource_group
    found: list[CloudResource] = []
    with asked("Microsoft.Compute/virtualMachines/read", group):
        machines = [item.as_dict() for item in compute.virtual_machines.list(group)]
    found += _resources(account, site, ("instance", VIRTUAL_MACHINES), machines)
    with asked("Microsoft.Compute/disks/read", group):
        disks = [item.as_dict() for item in compute.disks.list_by_resource_group(group)]
    found += _resources(account, site, ("disk", DISKS), disks)
    with asked("Microsoft.Compute/snapshots/read", group):
        snapshots = [item.as_dict() for item in compute.snapshots.list_by_resource_group(group)]
    found += _resources(account, site, ("snapshot", SNAPSHOTS), snapshots)
    found += _access(account, site, ((DISKS, disks), (SNAPSHOTS, snapshots)))
    interfaces = _network(account, NETWORK_INTERFACES)
    # What belongs to a machine goes with it.
    strays = [item for item in interfaces if not item.get("properties", {}).get("virtualMachine")]
    found += _resources(account, site, ("network-interface", NETWORK_INTERFACES), strays)
    groups = _network(account, NETWORK_SECURITY_GROUPS)
    found += _resources(account, site, ("security-group", NETWORK_SECURITY_GROUPS), groups)
    return found + _job_folders(account, site)


def delete_resource(account: AzureAccount, resource: CloudResource) -> None:
    """Delete what `list_ours` found; what is gone is no error.

    Raises:
        CloudRefused: it is not tagged as this site's.
    """
    require_own(resource, account.settings.site)
    deletions: dict[str, Callable[[AzureAccount, str], None]] = {
        ACCESS: _end_access,
        "instance": delete_machine,
        "network-interface": delete_interface,
        "disk": delete_disk,
        "snapshot": delete_snapshot,
        "security-group": delete_group,
        "object": _delete_folder,
    }
    deletions[resource.kind](account, resource.id)


def _network(account: AzureAccount, kind: str) -> list[dict[str, Any]]:
    path = f"{account.settings.group_id}/providers/{kind}"
    return list(account.clients.arm.pages(path, NETWORK_API, f"{kind}/read"))


def _resources(
    account: AzureAccount, site: str, kinds: tuple[str, str], items: Iterable[dict[str, Any]]
) -> list[CloudResource]:
    kind, arm_kind = kinds
    return [
        # Lists show the resource group in capitals now and then: the id is made as we record it.
        CloudResource(kind, resource_id(account.settings, arm_kind, item["name"]), tags)
        for item, tags in _of_site(account, site, items)
    ]


def _of_site(
    account: AzureAccount, site: str, items: Iterable[dict[str, Any]]
) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield what is the site's and lies here.

    A group may hold what targets in other locations made, which the ledger keeps apart.
    """
    here = short_location(account.settings.location)
    for item in items:
        tags = dict(item.get("tags") or {})
        elsewhere = short_location(str(item.get("location") or here)) != here
        if tags.get(TAG_SITE) == site and not elsewhere:
            yield item, tags


def _access(
    account: AzureAccount, site: str, listed: Iterable[tuple[str, list[dict[str, Any]]]]
) -> Iterator[CloudResource]:
    """Yield what a signed URL may still open; the ledger knows who asked for it."""
    for arm_kind, items in listed:
        for item, tags in _of_site(account, site, items):
            mode = OPEN_STATES.get(str((item.get("properties") or {}).get("diskState", "")))
            if mode is None:
                continue
            arm_id = resource_id(account.settings, arm_kind, item["name"])
            # An access that was never recorded is found by the token of its own intent.
            token = f"{account.scope}/{token_of(site, ACCESS, ACCESS, arm_id.lower(), mode)}"
            tags |= {TAG_ROLE: ACCESS, TAG_TOKEN: token}
            yield CloudResource(ACCESS, access_id(arm_id), tags)


def _end_access(account: AzureAccount, access: str) -> None:
    try:
        end_access(account, access.removeprefix(f"{ACCESS}:"))
    except CloudRefused as error:
        # The URL opens nothing any more, but what was uploaded through it is no disk: a killed
        # upload, which is the next to go.
        if "VHD" not in error.message:
            raise
        account.mark(access, "deleted")


def _job_folders(account: AzureAccount, site: str) -> list[CloudResource]:
    listed = list_blobs(account, f"{ROOT}/{site}/")
    return job_folders(listed, site, account.settings.expires_seconds)


def _delete_folder(account: AzureAccount, prefix: str) -> None:
    require_own_folder(prefix, account.settings.site)
    delete_prefix(account, prefix)
    account.mark(prefix, "deleted")
