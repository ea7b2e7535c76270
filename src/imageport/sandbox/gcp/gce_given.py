# References: Compute Engine REST v1: networks, subnetworks, zones, regions, machineTypes,
# diskTypes, projects; VPC, "Default network" (rules that come with it).
"""What exists from the start: an operator or Google made it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from imageport.sandbox.gcp.account import (
    BOOT_SUBNET,
    ENGINE_IMAGE,
    NETWORK,
    PROJECT,
    REGION,
    SERVICE_ACCOUNT,
    SUBNET,
    ZONE,
)
from imageport.sandbox.gcp.gce_compute import FILE, Compute
from imageport.sandbox.gcp.gce_listing import page_of
from imageport.sandbox.gcp.gce_machine_types import DISK_TYPES, MOST_DISKS, TYPES, MachineType
from imageport.sandbox.gcp.gce_messages import GceRequest, Json, not_found
from imageport.sandbox.gcp.gce_names import link, name_of
from imageport.sandbox.gcp.gce_quotas import project_quotas, regional_quotas
from imageport.sandbox.gcp.gce_table import PRIVATE, shown

ZONES: Final = tuple(f"{REGION}-{letter}" for letter in "abc")
DEBIAN: Final = "projects/debian-cloud/global/images/debian-12-bookworm-v20251111"
_INTERNAL_RULE: Final = f"projects/{PROJECT}/global/firewalls/lab-allow-internal"
_RANGES: Final = {SUBNET: "10.30.0.0/24", BOOT_SUBNET: "10.30.1.0/24"}


def make_given(compute: Compute) -> None:
    """Put what has to be there into the table, unless an earlier process of this root did."""
    for path, kind, body in _resources():
        if compute.table.get(path) is None:
            document = compute.new(kind, path, body)
            document[PRIVATE] = {FILE: f"given-{document['id']}", "applies": True}
            compute.table.put(path, document)


def get_network(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a network."""
    return _given(
        compute, f"projects/{request.project}/global/networks/{request.fields['network']}"
    )


def list_networks(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of the project's networks."""
    path = f"projects/{request.project}/global/networks"
    return page_of(request, "networkList", path, (item for _, item in compute.table.below(path)))


def get_subnet(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a subnet."""
    return _given(compute, f"{_subnets(request)}/{request.fields['subnetwork']}")


def list_subnets(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a region's subnets."""
    path = _subnets(request)
    items = (_given(compute, one) for one, _ in compute.table.below(path))
    return page_of(request, "subnetworkList", path, items)


def get_zone(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a zone."""
    return _one(compute, request.zone, _zones(request))


def list_zones(_compute: Compute, request: GceRequest) -> Json:
    """Answer GET of all zones."""
    return page_of(request, "zoneList", f"projects/{request.project}/zones", _zones(request))


def get_region(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a region with its quotas."""
    return _one(compute, request.fields["region"], [_region(compute, request)])


def list_regions(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of all regions."""
    path = f"projects/{request.project}/regions"
    return page_of(request, "regionList", path, [_region(compute, request)])


def get_machine_type(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a machine type."""
    return _one(compute, request.fields["machineType"], _machine_types(request))


def list_machine_types(_compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a zone's machine types."""
    path = f"projects/{request.project}/zones/{request.zone}/machineTypes"
    return page_of(request, "machineTypeList", path, _machine_types(request))


def get_disk_type(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a disk type."""
    return _one(compute, request.fields["diskType"], _disk_types(request))


def list_disk_types(_compute: Compute, request: GceRequest) -> Json:
    """Answer GET of a zone's disk types."""
    path = f"projects/{request.project}/zones/{request.zone}/diskTypes"
    return page_of(request, "diskTypeList", path, _disk_types(request))


def get_project(compute: Compute, request: GceRequest) -> Json:
    """Answer GET of the project with its quotas."""
    path = f"projects/{request.project}"
    document: Json = {
        "kind": "compute#project",
        "name": request.project,
        "defaultServiceAccount": SERVICE_ACCOUNT,
        "quotas": project_quotas(compute),
        "selfLink": link(path),
    }
    return document | compute.knobs.resources.get(path, {})


def _given(compute: Compute, path: str) -> Json:
    return shown(compute.table.require(path)) | compute.knobs.resources.get(path, {})


def _one(compute: Compute, name: str, items: Iterable[Json]) -> Json:
    """Return the one of a name, with what the knob says of it."""
    items = list(items)
    found: Json | None = next((item for item in items if item["name"] == name), None)
    if found is None:
        collection = items[0]["selfLink"].rsplit("/", 1)[0] if items else link("projects")
        raise not_found(f"{collection.removeprefix(link(''))}/{name}")
    path = str(found["selfLink"]).removeprefix(link(""))
    return found | compute.knobs.resources.get(path, {})


def _named(kind: str, path: str, **facts: Any) -> Json:
    return {"kind": f"compute#{kind}", "name": name_of(path), "selfLink": link(path), **facts}


def _subnets(request: GceRequest) -> str:
    return f"projects/{request.project}/regions/{request.fields['region']}/subnetworks"


def _zones(request: GceRequest) -> list[Json]:
    region = link(f"projects/{request.project}/regions/{REGION}")
    return [
        _named("zone", f"projects/{request.project}/zones/{name}", status="UP", region=region)
        for name in ZONES
    ]


def _region(compute: Compute, request: GceRequest) -> Json:
    return _named(
        "region",
        f"projects/{request.project}/regions/{REGION}",
        status="UP",
        zones=[link(f"projects/{request.project}/zones/{name}") for name in ZONES],
        quotas=regional_quotas(compute),
    )


def _machine_types(request: GceRequest) -> list[Json]:
    # The other zones exist, and offer nothing.
    offered = TYPES if request.zone == ZONE else ()
    return [_machine_type(request, item) for item in offered]


def _machine_type(request: GceRequest, item: MachineType) -> Json:
    return _named(
        "machineType",
        f"projects/{request.project}/zones/{request.zone}/machineTypes/{item.name}",
        zone=request.zone,
        guestCpus=item.vcpus,
        memoryMb=item.memory_mb,
        architecture=item.architecture,
        maximumPersistentDisks=MOST_DISKS,
        isSharedCpu=item.name == "e2-medium",
    )


def _disk_types(request: GceRequest) -> list[Json]:
    place = f"projects/{request.project}/zones/{request.zone}"
    offered = DISK_TYPES if request.zone == ZONE else {}
    return [
        _named("diskType", f"{place}/diskTypes/{name}", zone=link(place), validDiskSize=sizes)
        for name, (_least, _quota, sizes) in offered.items()
    ]


def _resources() -> list[tuple[str, str, Json]]:
    return [
        (NETWORK, "network", {
            "autoCreateSubnetworks": False,
            "subnetworks": [link(SUBNET), link(BOOT_SUBNET)],
        }),
        *((path, "subnetwork", _subnet(path)) for path in (SUBNET, BOOT_SUBNET)),
        (_INTERNAL_RULE, "firewall", {
            "network": link(NETWORK), "direction": "INGRESS", "priority": 65534, "disabled": False,
            "sourceRanges": ["10.128.0.0/9"],
            "allowed": [{"IPProtocol": name} for name in ("tcp", "udp", "icmp")],
        }),
        (ENGINE_IMAGE, "image", _image("imageport-engine")),
        (DEBIAN, "image", _image("debian-12")),
    ]  # fmt: skip


def _subnet(path: str) -> Json:
    return {
        "network": link(NETWORK),
        "region": link(f"projects/{PROJECT}/regions/{REGION}"),
        "ipCidrRange": _RANGES[path],
        "gatewayAddress": _RANGES[path].replace(".0/24", ".1"),
        "privateIpGoogleAccess": True,
        "purpose": "PRIVATE",
        "stackType": "IPV4_ONLY",
    }


def _image(family: str) -> Json:
    features = ("UEFI_COMPATIBLE", "VIRTIO_SCSI_MULTIQUEUE", "GVNIC")
    return {
        "status": "READY",
        "sourceType": "RAW",
        "family": family,
        "diskSizeGb": "10",
        "archiveSizeBytes": "1000000000",
        "architecture": "X86_64",
        "storageLocations": ["eu"],
        "guestOsFeatures": [{"type": name} for name in features],
    }
