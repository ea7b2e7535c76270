# References: Compute Engine, "Persistent Disk" (size limits), "Labels and descriptions"; REST v1:
# zones, subnetworks, images; VPC, "Private Google Access"; Cloud KMS, "Locations".
"""What about the place would stop an image: looked at before anything is created."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

from google.cloud import compute_v1

from imageport.cloud import PlaceProblem
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.lookups import API_OFF, look_up
from imageport.clouds.gcp.names import IMAGE, SUBNET
from imageport.clouds.gcp.network import SHARED_NETWORK_HINT, isolation_gaps, takes_rules
from imageport.clouds.gcp.place_bucket import check_bucket, covers
from imageport.clouds.gcp.place_machines import check_disk_type, check_machines
from imageport.clouds.gcp.quotas import check_quotas
from imageport.clouds.gcp.signing import account_at_google
from imageport.clouds.place_checks import PlaceCheck, problems_of
from imageport.errors import CloudRefused, InputError
from imageport.model import GIB

LARGEST_DISK_GIB: Final = 64 * 1024
"""Of persistent disks and of Hyperdisk Balanced."""
MAX_NAME_CHARACTERS: Final = 256
NAME: Final = re.compile(r"[ -~]*")
"""ASCII: the description of a resource holds 2048 characters, and JSON makes six of any other."""
FOR_MACHINES: Final = frozenset({"", "PRIVATE"})
"""Purposes of a subnet that takes machines; others are for proxies and service endpoints."""
UNUSABLE: Final = frozenset({"OBSOLETE", "DELETED"})
_KEY_LOCATION: Final = re.compile(r"projects/[^/]+/locations/([^/]+)/")

Problems = Iterator[PlaceProblem]
SubnetOf = Callable[[str], Any]
"""Asks for a subnet by its path; None when there is none."""


def check_place(account: GcpAccount, image: str, size_bytes: int) -> list[PlaceProblem]:
    """Return every problem at once.

    Raises:
        CloudUnavailable: Google did not answer, so nothing can be said.
    """
    account.settings.require("subnet")
    machines: dict[str, tuple[str, int]] = {}
    zone = problems_of([lambda: _zone(account)])
    subnet_of = functools.cache(functools.partial(_subnet, account))
    of_zone: tuple[PlaceCheck, ...] = (
        lambda: check_machines(account, machines),
        lambda: check_disk_type(account),
        lambda: check_quotas(account, size_bytes, machines),
    )
    checks: tuple[PlaceCheck, ...] = (
        lambda: _names(account, image),
        lambda: _size(image, size_bytes),
        lambda: zone,
        # Nothing is in a zone that is not there.
        *(() if zone else of_zone),
        lambda: _subnets(account, subnet_of),
        lambda: _rules(account, subnet_of),
        lambda: _isolation(account),
        lambda: _engine_image(account),
        lambda: check_bucket(account),
        lambda: _key(account),
        lambda: _signer(account),
    )
    return problems_of(checks)


def _names(account: GcpAccount, image: str) -> Problems:
    site = account.settings.site
    for subject, name in ((f"name of '{image[:40]}'", image), ("site", site)):
        if len(name) > MAX_NAME_CHARACTERS:
            needed = f"at most {MAX_NAME_CHARACTERS}: it is part of a description"
            yield PlaceProblem(subject, f"{len(name)} characters", needed)
    if not NAME.fullmatch(site):
        yield PlaceProblem("site", f"'{site}'", "ASCII characters")


def _size(image: str, size_bytes: int) -> Problems:
    gib = -(-size_bytes // GIB)
    if gib > LARGEST_DISK_GIB:
        yield PlaceProblem(
            f"size of '{image[:40]}'",
            f"{gib} GiB",
            f"at most {LARGEST_DISK_GIB} GiB (64 TiB, the largest disk)",
        )


def _zone(account: GcpAccount) -> Problems:
    settings = account.settings
    zones = account.clients.compute(compute_v1.ZonesClient)
    found = look_up(
        "compute.zones.get",
        settings.zone,
        lambda: zones.get(project=settings.project, zone=settings.zone),
    )
    if found is None:
        yield PlaceProblem(
            "zone", f"no '{settings.zone}' in project '{settings.project}'",
            f"a zone of {settings.region}",
            "Check the zone, and that the project's id is right.",
        )  # fmt: skip
    elif found.status == "DOWN":
        yield PlaceProblem("zone", f"'{settings.zone}', which is down", "one that works")


def _subnets(account: GcpAccount, subnet_of: SubnetOf) -> Problems:
    settings = account.settings
    named = {"subnet": settings.subnet, "boot_subnet": settings.boot_subnet}
    for setting, subnet in named.items():
        if not subnet:
            continue
        found = subnet_of(subnet)
        if found is None:
            yield PlaceProblem(setting, f"no '{subnet}'", "a subnet")
            continue
        if found.purpose not in FOR_MACHINES:
            needed = "one that takes machines"
            yield PlaceProblem(setting, f"a subnet of purpose {found.purpose}", needed)
        if setting == "subnet" and not _reaches_google(account, found):
            yield PlaceProblem(
                setting,
                f"'{found.name}' without Private Google Access",
                "it switched on: engine machines have no external address",
                "gcloud compute networks subnets update "
                f"{found.name} --region {settings.region} --enable-private-ip-google-access",
            )


def _reaches_google(account: GcpAccount, subnet: Any) -> bool:
    """An endpoint of the network's own answers for Google's APIs without it."""
    return bool(subnet.private_ip_google_access or account.settings.private_service_connect)


def _subnet(account: GcpAccount, subnet: str) -> Any | None:
    parts = SUBNET.fullmatch(subnet)
    if parts is None:
        return None
    project, region, name = parts.groups()
    client = account.clients.compute(compute_v1.SubnetworksClient)
    return look_up(
        "compute.subnetworks.get",
        subnet,
        lambda: client.get(project=project, region=region, subnetwork=name),
    )


def _rules(account: GcpAccount, subnet_of: SubnetOf) -> Problems:
    """Where the rules of a shared network are the operator's, machines need to know their tags."""
    settings = account.settings
    needing = {
        "engine_network_tags": settings.subnet,
        "isolated_network_tag": settings.boot_subnet or settings.subnet,
    }
    for setting, subnet in needing.items():
        found = None if getattr(settings, setting) else subnet_of(subnet)
        if found is not None and not takes_rules(account, found.network):
            yield PlaceProblem(
                setting, "none", f"tags of rules in '{found.network}', which is of another project",
                SHARED_NETWORK_HINT,
            )  # fmt: skip


def _isolation(account: GcpAccount) -> Problems:
    """The operator's own rules let nothing in, and out only what they name."""
    settings = account.settings
    subnet = settings.boot_subnet or settings.subnet
    tag = settings.isolated_network_tag
    if not tag or _subnet(account, subnet) is None:
        return
    gaps = isolation_gaps(account, subnet, tag)
    if gaps:
        yield PlaceProblem(
            "isolated_network_tag",
            f"'{tag}' with {'; '.join(gaps)}",
            "rules that deny every way in and out",
            "The image boots once without its updates: nobody may reach it.",
        )


def _engine_image(account: GcpAccount) -> Problems:
    named, setting = account.settings.engine_image, "engine_image"
    parts = IMAGE.fullmatch(named)
    if parts is None:
        return
    project, family, name = parts.groups()
    images = account.clients.images
    if family:
        action = "compute.images.getFromFamily"
        found = look_up(action, named, lambda: images.get_from_family(project=project, family=name))
    else:
        action = "compute.images.get"
        found = look_up(action, named, lambda: images.get(project=project, image=name))
    if found is None:
        yield PlaceProblem(setting, f"no '{named}'", "an image, or a family with one")
        return
    if found.status != "READY":
        yield PlaceProblem(setting, f"an image of status {found.status}", "READY")
    if found.deprecated.state in UNUSABLE:
        needed = "one of which disks can be made"
        yield PlaceProblem(setting, f"an image that is {found.deprecated.state}", needed)
    if found.architecture == "ARM64":
        yield PlaceProblem(setting, "an image for ARM64", "one for X86_64")


def _key(account: GcpAccount) -> Problems:
    """A key has to be where images and objects are; whether it can be used shows its state."""
    settings = account.settings
    parts = _KEY_LOCATION.match(settings.kms_key)
    if parts is None:
        return
    if not covers(parts[1], settings.region):
        needed = f"one in '{settings.region}', in its continent or global"
        yield PlaceProblem("kms_key", f"a key in '{parts[1]}'", needed)
    path = settings.kms_key.partition("/cryptoKeyVersions/")[0]
    try:
        key = look_up(
            "cloudkms.cryptoKeys.get",
            settings.kms_key,
            lambda: account.clients.ask("cloudkms", "GET", f"/v1/{path}"),
        )
    except CloudRefused as error:
        if error.fields.get("gcp_code") in API_OFF:
            return  # keys of another project are used without it, and cannot be looked at
        raise
    if key is None:
        yield PlaceProblem("kms_key", f"no '{path}'", "a key of Cloud KMS")
        return
    purpose = str(key.get("purpose", "ENCRYPT_DECRYPT"))
    state = str((key.get("primary") or {}).get("state", "ENABLED"))
    if purpose != "ENCRYPT_DECRYPT":
        yield PlaceProblem("kms_key", f"a key of purpose {purpose}", "ENCRYPT_DECRYPT")
    elif state != "ENABLED":
        yield PlaceProblem("kms_key", f"a key whose primary version is {state}", "ENABLED")


def _signer(account: GcpAccount) -> Problems:
    """Engine machines get signed URLs, and a person's or a plain federation's login signs none."""
    try:
        account_at_google(account)
    except InputError as error:
        yield PlaceProblem(
            "signing_account", "none", "a service account that signs URLs", error.hint
        )
