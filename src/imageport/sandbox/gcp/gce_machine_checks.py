# References: Compute Engine REST v1, "instances.insert"; "Set startup script limits" (metadata);
# "Limit the run time of a VM"; "Use Google Virtual NIC".
"""What a new machine is checked for before anything of it exists."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Any, Final

from imageport.sandbox.gcp.account import ZONE
from imageport.sandbox.gcp.gce_compute import Compute
from imageport.sandbox.gcp.gce_machine_types import MachineType, find_type
from imageport.sandbox.gcp.gce_messages import GceRefusal, Json, invalid, required
from imageport.sandbox.gcp.gce_names import (
    check_described,
    is_name,
    link,
    name_of,
    new_fingerprint,
    path_of,
)

KEPT: Final = (
    "description", "labels", "machineType", "scheduling", "shieldedInstanceConfig",
    "displayDevice", "canIpForward", "serviceAccounts",
)  # fmt: skip
"""Members of a body that a machine simply has."""
_MORE: Final = ("name", "disks", "networkInterfaces", "tags", "metadata", "zone")
_METADATA_KEY: Final = re.compile(r"[a-zA-Z0-9-_]{1,128}")
METADATA_VALUE_BYTES: Final = 256 * 1024
METADATA_BYTES: Final = 512 * 1024
RUN_SECONDS: Final = (30, 120 * 24 * 3600)
"""Shortest and longest that a machine's run time may be limited to."""
MOST_TAGS: Final = 64
EXTERNAL_ADDRESS: Final = "203.0.113.10"
"""Of RFC 5737: documentation; nothing is reached there."""


@dataclass(frozen=True, slots=True)
class BootFacts:
    """What a machine boots from, as far as its hardware has to fit it."""

    features: frozenset[str]
    architecture: str


def check_body(body: Json) -> None:
    """Refuse what the sandbox's machines cannot have, and what nobody's can."""
    unknown = set(body) - {*KEPT, *_MORE}
    if unknown:
        text = f"The sandbox makes no machines with {', '.join(sorted(unknown))}."
        raise GceRefusal(400, "invalid", text)
    check_described(body)
    _check_scheduling(body.get("scheduling", {}))


def check_machine_type(body: Json) -> MachineType:
    """Return the machine type; one that the zone does not have is refused."""
    given = str(body.get("machineType", ""))
    if not given:
        raise required("resource.machineType")
    path = path_of(given, "resource.machineType", f"zones/{ZONE}")
    found = find_type(name_of(path))
    if "/machineTypes/" not in path or found is None:
        text = f"Machine type with name '{name_of(path)}' does not exist in zone '{ZONE}'."
        raise invalid("resource.machineType", given, text)
    return found


def check_tags(tags: Json) -> Json:
    """Return network tags with a fingerprint."""
    items = list(dict.fromkeys(tags.get("items", [])))
    if len(items) > MOST_TAGS:
        raise invalid("resource.tags.items", len(items), f"At most {MOST_TAGS} are allowed.")
    for item in items:
        if not is_name(item):
            raise invalid("resource.tags.items", item, "Must be a network tag.")
    found: Json = {"fingerprint": new_fingerprint()}
    return found | ({"items": items} if items else {})


def check_metadata(metadata: Json) -> Json:
    """Return metadata with a fingerprint."""
    items = metadata.get("items", [])
    keys = [str(item.get("key", "")) for item in items]
    for key in keys:
        if not _METADATA_KEY.fullmatch(key):
            text = f"Must be a match of regex '{_METADATA_KEY.pattern}'"
            raise invalid("resource.metadata.items.key", key, text)
    if len(set(keys)) != len(keys):
        raise invalid("resource.metadata", keys, "Keys have to be unique.")
    sizes = [len(str(item.get("value", "")).encode()) for item in items]
    if any(size > METADATA_VALUE_BYTES for size in sizes) or sum(sizes) > METADATA_BYTES:
        text = f"Must be at most {METADATA_VALUE_BYTES} bytes each, {METADATA_BYTES} in all."
        raise invalid("resource.metadata", sum(sizes), text)
    found: Json = {"kind": "compute#metadata", "fingerprint": new_fingerprint()}
    return found | ({"items": items} if items else {})


def check_interfaces(compute: Compute, body: Json) -> list[Json]:
    """Return the network interfaces with what Google adds."""
    given = body.get("networkInterfaces", [])
    if not given:
        text = "At least one network interface is required."
        raise invalid("resource.networkInterfaces", "", text)
    if len(given) > 1:
        raise GceRefusal(400, "invalid", "The sandbox gives machines one network interface.")
    return [_interface(compute, item, index) for index, item in enumerate(given)]


def _interface(compute: Compute, given: Json, index: int) -> Json:
    field = f"resource.networkInterfaces[{index}]"
    if not given.get("subnetwork"):
        text = "The network is in custom subnet mode: a subnetwork has to be named."
        raise invalid(f"{field}.network", given.get("network", ""), text)
    path = path_of(given["subnetwork"], f"{field}.subnetwork")
    subnet = compute.table.get(path)
    if subnet is None:
        text = "The referenced subnetwork resource cannot be found."
        raise invalid(f"{field}.subnetwork", given["subnetwork"], text)
    compute.check("compute.subnetworks.use", path)
    found = {
        **given,
        "kind": "compute#networkInterface",
        "name": f"nic{index}",
        "network": subnet["network"],
        "subnetwork": link(path),
        "stackType": given.get("stackType", "IPV4_ONLY"),
        "networkIP": _address(compute, subnet),
        "fingerprint": new_fingerprint(),
    }
    if given.get("accessConfigs"):
        compute.check("compute.subnetworks.useExternalIp", path)
        found["accessConfigs"] = [
            {"type": "ONE_TO_ONE_NAT", "name": "External NAT", "natIP": EXTERNAL_ADDRESS, **item}
            for item in given["accessConfigs"]
        ]
    return found


def _address(compute: Compute, subnet: Json) -> str:
    used = {
        interface["networkIP"]
        for _, machine in compute.table.of_type("instances")
        for interface in machine["networkInterfaces"]
    }
    hosts = ipaddress.ip_network(subnet["ipCidrRange"]).hosts()
    next(hosts)  # the gateway
    return next(text for text in map(str, hosts) if text not in used)


def check_fit(kind: MachineType, body: Json, interfaces: list[Json], boot: BootFacts) -> None:
    """Refuse adapters and processors that machine type and boot disk do not have in common."""
    if boot.architecture != kind.architecture:
        text = (
            f"The architecture of the boot disk, {boot.architecture}, is not that of machine type "
            f"{kind.name}, {kind.architecture}."
        )
        raise GceRefusal(400, "invalid", text)
    usual = "GVNIC" if "GVNIC" in boot.features else "VIRTIO_NET"
    for interface in interfaces:
        asked = interface.setdefault("nicType", usual)
        if asked not in {"GVNIC", "VIRTIO_NET"}:
            raise invalid("resource.networkInterfaces[0].nicType", asked, "Unknown type.")
        if asked not in kind.nic_types:
            text = f"[{asked}] features and [instance_type: {kind.name}] are not compatible."
            raise GceRefusal(400, "badRequest", text)
        if asked == "GVNIC" and "GVNIC" not in boot.features:
            text = "The boot disk's image does not support gVNIC."
            raise invalid("resource.networkInterfaces[0].nicType", asked, text)
    shielded = body.get("shieldedInstanceConfig", {})
    wants = shielded.get("enableSecureBoot") or shielded.get("enableVtpm")
    if wants and "UEFI_COMPATIBLE" not in boot.features:
        text = "Shielded VM Config can only be set when using a UEFI-compatible disk."
        raise invalid("resource.shieldedInstanceConfig", shielded, text)


def check_accounts(compute: Compute, body: Json) -> None:
    """Refuse service accounts that the caller may not give away."""
    accounts = body.get("serviceAccounts", [])
    if len(accounts) > 1:
        raise invalid("resource.serviceAccounts", len(accounts), "At most one is allowed.")
    for item in accounts:
        compute.check("iam.serviceAccounts.actAs", str(item.get("email", "")))


def run_limit(scheduling: Json) -> float:
    """Return after how many seconds the machine is ended; 0 is never."""
    limit: Any = scheduling.get("maxRunDuration", {})
    return float(limit.get("seconds", 0))


def _check_scheduling(scheduling: Json) -> None:
    limit = run_limit(scheduling)
    action = scheduling.get("instanceTerminationAction", "")
    if action and action not in {"STOP", "DELETE"}:
        raise invalid("resource.scheduling.instanceTerminationAction", action, "Unknown action.")
    if "maxRunDuration" not in scheduling:
        if action:
            text = "Only for machines of a limited run time, and Spot ones."
            raise invalid("resource.scheduling.instanceTerminationAction", action, text)
        return
    if not RUN_SECONDS[0] <= limit <= RUN_SECONDS[1]:
        text = f"Must be from {RUN_SECONDS[0]} to {RUN_SECONDS[1]} seconds."
        raise invalid("resource.scheduling.maxRunDuration", limit, text)
