# References: Azure, "Resource limits" (tags), "Managed disk types" (system disks), "Network
# security groups"; Network REST: Subnets, Virtual Networks.
"""What about the place would stop an image: looked at before anything is created."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from imageport.cloud import PlaceProblem
from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.arm_http import NETWORK_API, RESOURCES_API
from imageport.clouds.azure.disk_sizes import LARGEST_OS_DISK_BYTES
from imageport.clouds.azure.error_mapping import asked
from imageport.clouds.azure.job_folder import BLOBS
from imageport.clouds.azure.names import short_location
from imageport.clouds.azure.network import PLATFORM_TAGS
from imageport.clouds.azure.place_machines import check_machines, check_quota
from imageport.clouds.job_names import ROOT
from imageport.clouds.place_checks import PlaceCheck, problems_of
from imageport.errors import CloudRefused, CloudUnavailable, ResourceGone
from imageport.model import GIB

MAX_TAG_CHARACTERS: Final = 256
"""Of a tag's value: site and run are tags, and so is the image's name."""
SITE_NAME: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9_-])?")
"""The site is a part of blob names: no slash, no dot at its end, nothing that a URL encodes."""
SYSTEM_DISK_SKUS: Final = (
    "Standard_LRS", "StandardSSD_LRS", "StandardSSD_ZRS", "Premium_LRS", "Premium_ZRS",
)  # fmt: skip
"""Ultra and Premium SSD v2 are for data only: nothing boots from them."""
DISK_API: Final = "2023-10-02"
IMAGE_API: Final = "2024-07-01"
GALLERY_API: Final = "2023-07-03"
WHOLE_RULE: Final = (
    "protocol", "sourceAddressPrefix", "sourcePortRange", "destinationAddressPrefix",
    "destinationPortRange",
)  # fmt: skip
OPEN_IMAGE_HINT: Final = "The image boots once without its updates: nobody may reach it."

Problems = Iterator[PlaceProblem]


def check_place(account: AzureAccount, image: str, size_bytes: int) -> list[PlaceProblem]:
    """Return every problem at once.

    Raises:
        CloudUnavailable: Azure did not answer, so nothing can be said.
    """
    account.settings.require("subnet_id", "job_container_url")
    checks: tuple[PlaceCheck, ...] = (
        lambda: _names(account, image),
        lambda: _size(image, size_bytes),
        lambda: _skus(account),
        lambda: _group(account),
        lambda: _subnets(account),
        lambda: _security_groups(account),
        lambda: check_machines(account),
        lambda: check_quota(account),
        lambda: _linked(account),
        lambda: _engine_image(account),
        lambda: _container(account),
    )
    return problems_of(checks)


def _names(account: AzureAccount, image: str) -> Problems:
    site = account.settings.site
    for subject, name in ((f"name of '{image[:40]}'", image), ("site", site)):
        if len(name) > MAX_TAG_CHARACTERS:
            needed = f"at most {MAX_TAG_CHARACTERS}: it becomes a tag"
            yield PlaceProblem(subject, f"{len(name)} characters", needed)
    if site and not SITE_NAME.fullmatch(site):
        yield PlaceProblem("site", f"'{site}'", "letters, digits, '.', '_' and '-'")


def _size(image: str, size_bytes: int) -> Problems:
    if size_bytes > LARGEST_OS_DISK_BYTES:
        most = LARGEST_OS_DISK_BYTES // GIB
        yield PlaceProblem(
            f"size of '{image[:40]}'",
            f"{-(-size_bytes // GIB)} GiB",
            f"at most {most} GiB (system disk)",
            "Shrink the disk; no machine at Azure boots from a larger one.",
        )


def _skus(account: AzureAccount) -> Problems:
    for setting in ("upload_disk_sku", "disk_sku"):
        sku = getattr(account.settings, setting)
        if sku not in SYSTEM_DISK_SKUS:
            yield PlaceProblem(setting, f"'{sku}'", f"one of {', '.join(SYSTEM_DISK_SKUS)}")


def _group(account: AzureAccount) -> Problems:
    settings = account.settings
    action = "Microsoft.Resources/subscriptions/resourceGroups/read"
    found = _get(account, settings.group_id, RESOURCES_API, action)
    if found is None:
        yield PlaceProblem(
            "resource_group",
            f"no '{settings.resource_group}'",
            f"a resource group of subscription {settings.subscription_id}",
        )


def _subnets(account: AzureAccount) -> Problems:
    settings = account.settings
    named = {"subnet_id": settings.subnet_id, "boot_subnet_id": settings.boot_subnet_id}
    for setting, subnet_id in named.items():
        if not subnet_id:
            continue
        action = "Microsoft.Network/virtualNetworks/subnets/read"
        subnet = _get(account, subnet_id, NETWORK_API, action)
        if subnet is None:
            yield PlaceProblem(setting, f"no '{subnet_id}'", "a subnet")
            continue
        delegated = [
            str(item.get("properties", {}).get("serviceName", "a service"))
            for item in subnet.get("properties", {}).get("delegations") or []
        ]
        if delegated:
            found = f"a subnet delegated to {', '.join(delegated)}"
            yield PlaceProblem(setting, found, "one that takes virtual machines")
        network_id = subnet_id.rsplit("/subnets/", maxsplit=1)[0]
        action = "Microsoft.Network/virtualNetworks/read"
        yield from _elsewhere(account, setting, _get(account, network_id, NETWORK_API, action))


def _security_groups(account: AzureAccount) -> Problems:
    for setting in ("engine_network_security_group_id", "isolated_network_security_group_id"):
        group_id = getattr(account.settings, setting)
        if not group_id:
            continue
        action = "Microsoft.Network/networkSecurityGroups/read"
        group = _get(account, group_id, NETWORK_API, action)
        if group is None:
            yield PlaceProblem(setting, f"no '{group_id}'", "a network security group")
            continue
        yield from _elsewhere(account, setting, group)
        if setting.startswith("isolated"):
            yield from _ways(setting, [item["properties"] for item in _rules(group)])


def _ways(setting: str, rules: list[dict[str, Any]]) -> Problems:
    """A group of the operator's may let out what it names, but nobody in, and not by default.

    What a group does not deny itself, Azure's own rules allow: the virtual network both ways, and
    the internet outwards.
    """
    closed = {"Inbound": False, "Outbound": False}
    let_in = 0
    for rule in sorted(rules, key=lambda item: int(item["priority"])):
        direction = str(rule["direction"])
        if str(rule["access"]) == "Deny":
            closed[direction] = closed[direction] or _is_everything(rule)
        elif direction == "Inbound" and not closed[direction]:
            let_in += 1
    if let_in:
        yield PlaceProblem(setting, f"{let_in} rules that let others in", "none", OPEN_IMAGE_HINT)
    for direction, is_closed in closed.items():
        if not is_closed:
            found = f"no rule that denies everything else {direction.lower()}"
            yield PlaceProblem(setting, found, "one", OPEN_IMAGE_HINT)
    denied = {
        str(rule.get("destinationAddressPrefix", ""))
        for rule in rules
        if str(rule["access"]) == "Deny" and str(rule["direction"]) == "Outbound"
    }
    missing = [tag for tag in PLATFORM_TAGS if tag not in denied]
    if missing:
        # Only a rule with the tag itself reaches these addresses.
        yield PlaceProblem(setting, f"no rule that denies {', '.join(missing)}", "one for each")


def _is_everything(rule: dict[str, Any]) -> bool:
    return all(str(rule.get(name, "")) in {"*", "0.0.0.0/0"} for name in WHOLE_RULE)


def _rules(group: dict[str, Any]) -> list[dict[str, Any]]:
    return list(group.get("properties", {}).get("securityRules") or [])


def _linked(account: AzureAccount) -> Problems:
    """What disks refer to has to be where they are."""
    for setting, kind in (
        ("disk_encryption_set_id", "diskEncryptionSets"),
        ("disk_access_id", "diskAccesses"),
    ):
        named = getattr(account.settings, setting)
        if not named:
            continue
        found = _get(account, named, DISK_API, f"Microsoft.Compute/{kind}/read")
        if found is None:
            yield PlaceProblem(setting, f"no '{named}'", f"one of Microsoft.Compute/{kind}")
        yield from _elsewhere(account, setting, found)


def _engine_image(account: AzureAccount) -> Problems:
    """Machines are made only of an image that is where they are."""
    settings, setting = account.settings, "engine_image_id"
    named = settings.engine_image_id
    if not named:
        return
    kind, api = "images", IMAGE_API
    if settings.image_in_gallery:
        kind, api = "galleries/images/versions", GALLERY_API
    found = _get(account, named, api, f"Microsoft.Compute/{kind}/read")
    if found is None:
        yield PlaceProblem(setting, f"no '{named}'", f"one of Microsoft.Compute/{kind}")
    elif settings.image_in_gallery:
        profile = found.get("properties", {}).get("publishingProfile") or {}
        places = [short_location(item["name"]) for item in profile.get("targetRegions") or []]
        if places and short_location(settings.location) not in places:
            there = f"one in {', '.join(places)}"
            yield PlaceProblem(setting, there, f"one replicated to '{settings.location}'")
    else:
        yield from _elsewhere(account, setting, found)


def _container(account: AzureAccount) -> Problems:
    url = account.settings.job_container_url
    container = account.clients.blob_service.get_container_client(account.clients.job_container)
    needed = "a blob container that worker and subnet reach"
    try:
        with asked(f"{BLOBS}/read", account.clients.job_container):
            pages = container.list_blobs(name_starts_with=f"{ROOT}/", results_per_page=1).by_page()
            list(next(pages, ()))
    except CloudUnavailable:
        # Everything else answered: it is this account, its firewall or its name.
        yield PlaceProblem("job_container_url", f"no answer from '{url}'", needed)
    except (ResourceGone, CloudRefused) as error:
        status = error.fields.get("status")
        if status == 401:
            raise
        found = f"no '{url}'" if status == 404 else error.message
        yield PlaceProblem("job_container_url", found, needed, error.hint)


def _elsewhere(account: AzureAccount, setting: str, found: dict[str, Any] | None) -> Problems:
    location = short_location(str((found or {}).get("location", "")))
    if location and location != short_location(account.settings.location):
        yield PlaceProblem(setting, f"one in '{location}'", f"one in '{account.settings.location}'")


def _get(account: AzureAccount, path: str, api_version: str, action: str) -> dict[str, Any] | None:
    """Return a resource, None when it, its group or its subscription is not there."""
    try:
        return account.clients.arm.get(path, api_version, action)
    except CloudRefused as error:
        if error.fields.get("status") != 404:
            raise
        return None
