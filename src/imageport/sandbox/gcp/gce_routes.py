# References: Compute Engine REST v1 (paths); google-cloud-compute, request types; "IAM permissions
# for Compute Engine".
"""From a path to the one who answers it, with Google's type for it and the permission it needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from imageport.sandbox.gcp import (
    gce_attachments,
    gce_disks,
    gce_firewalls,
    gce_given,
    gce_images,
    gce_instances,
    gce_permissions,
    gce_power,
)
from imageport.sandbox.gcp.gce_compute import Compute
from imageport.sandbox.gcp.gce_labels import set_labels
from imageport.sandbox.gcp.gce_listing import page_of
from imageport.sandbox.gcp.gce_messages import GceRequest, Json, not_found
from imageport.sandbox.gcp.gce_operations import Operation

Handler = Callable[[Compute, GceRequest], Json]
LONGEST_WAIT_SECONDS: Final = 120.0
"""Google answers ``wait`` after two minutes although the operation is not done."""


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of path and method."""

    method: str
    pattern: re.Pattern[str]
    kind: str
    """Google's type of the request, ``InsertImageRequest``."""
    permission: str
    handler: Handler


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """Return route and parameters of a path below ``/compute/v1/``; None if there is none."""
    for route in ROUTES:
        found = route.pattern.fullmatch(path)
        if found is not None and route.method == method:
            return route, found.groupdict()
    return None


def is_known(path: str) -> bool:
    """Tell whether another method would have an answer."""
    return any(route.pattern.fullmatch(path) for route in ROUTES)


def _route(method: str, template: str, kind: str, permission: str, handler: Handler) -> Route:
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)
    return Route(
        method, re.compile(f"projects/{_PROJECT}{pattern}"), f"{kind}Request", permission, handler
    )


_PROJECT: Final = r"(?P<project>[^/]+)"
_IMAGES, _FIREWALLS = "/global/images", "/global/firewalls"
_ZONE: Final = "/zones/{zone}"
_DISKS, _MACHINES = f"{_ZONE}/disks", f"{_ZONE}/instances"
_MACHINE: Final = f"{_MACHINES}/{{instance}}"
_SUBNETS: Final = "/regions/{region}/subnetworks"


def _place(request: GceRequest) -> str:
    for member in ("zone", "region"):
        if member in request.fields:
            return f"projects/{request.project}/{member}s/{request.fields[member]}"
    return f"projects/{request.project}/global"


def _operation(compute: Compute, request: GceRequest) -> Operation:
    path = f"{_place(request)}/operations/{request.fields['operation']}"
    found = compute.operations.find(path)
    if found is None:
        raise not_found(path)
    return found


def _get_operation(compute: Compute, request: GceRequest) -> Json:
    return _operation(compute, request).document()


def _wait_operation(compute: Compute, request: GceRequest) -> Json:
    found = _operation(compute, request)
    compute.operations.wait(found, LONGEST_WAIT_SECONDS)
    return found.document()


def _list_operations(compute: Compute, request: GceRequest) -> Json:
    place = _place(request)
    items = (item.document() for item in compute.operations.of_place(place))
    return page_of(request, "operationList", f"{place}/operations", items)


def _labels(collection: str) -> Handler:
    def answer(compute: Compute, request: GceRequest) -> Json:
        place = f"projects/{request.project}{collection.format(**request.fields)}"
        return set_labels(compute, request, place)

    return answer


def _operations(place: str, kind: str, permission: str) -> tuple[Route, ...]:
    one = f"{place}/operations/{{operation}}"
    return (
        _route("GET", one, f"Get{kind}Operation", f"{permission}.get", _get_operation),
        _route("POST", f"{one}/wait", f"Wait{kind}Operation", f"{permission}.get", _wait_operation),
        _route(
            "GET", f"{place}/operations", f"List{kind}Operations", f"{permission}.list",
            _list_operations,
        ),
    )  # fmt: skip


def _four(
    path: str, singular: str, plural: str, handlers: tuple[Handler, Handler, Handler, Handler]
) -> tuple[Route, ...]:
    """Return the routes that every resource has: insert, get, list, delete."""
    insert, get, listing, delete = handlers
    member, permission = f"{path}/{{{singular.lower()}}}", f"compute.{plural.lower()}"
    return (
        _route("POST", path, f"Insert{singular}", f"{permission}.create", insert),
        _route("GET", member, f"Get{singular}", f"{permission}.get", get),
        _route("GET", path, f"List{plural}", f"{permission}.list", listing),
        _route("DELETE", member, f"Delete{singular}", f"{permission}.delete", delete),
    )


def _on_machine(method: str, verb: str, kind: str, handler: Handler) -> Route:
    end = verb if verb != "getSerialPortOutput" else "serialPort"
    path, permission = f"{_MACHINE}/{end.replace('getS', 's', 1)}", f"compute.instances.{verb}"
    return _route(method, path, f"{kind}Instance", permission, handler)


def _looked_at(
    path: str, kind: tuple[str, str], permission: str, handlers: tuple[Handler, Handler]
) -> tuple[Route, Route]:
    """Return the routes of what is only looked at."""
    member, plural = kind
    snake = re.sub(r"(?<!^)(?=[A-Z])", "_", member).lower()
    return (
        _route("GET", f"{path}/{{{snake}}}", f"Get{member}", f"{permission}.get", handlers[0]),
        _route("GET", path, f"List{plural}", f"{permission}.list", handlers[1]),
    )


ROUTES: Final = (
    *_operations("/global", "Global", "compute.globalOperations"),
    *_operations("/regions/{region}", "Region", "compute.regionOperations"),
    *_operations(_ZONE, "Zone", "compute.zoneOperations"),
    # Before the image of that name: a family is none.
    _route(
        "GET", f"{_IMAGES}/family/{{family}}", "GetFromFamilyImage",
        "compute.images.getFromFamily", gce_images.get_from_family,
    ),
    *_four(
        _IMAGES, "Image", "Images",
        (gce_images.insert, gce_images.get, gce_images.list_images, gce_images.delete),
    ),
    _route(
        "POST", f"{_IMAGES}/{{resource}}/setLabels", "SetLabelsImage",
        "compute.images.setLabels", _labels(_IMAGES),
    ),
    _route(
        "POST", f"{_IMAGES}/{{resource}}/testIamPermissions", "TestIamPermissionsImage",
        "", gce_permissions.test_resource,
    ),
    *_four(
        _DISKS, "Disk", "Disks",
        (gce_disks.insert, gce_disks.get, gce_disks.list_disks, gce_disks.delete),
    ),
    _route(
        "POST", f"{_DISKS}/{{resource}}/setLabels", "SetLabelsDisk",
        "compute.disks.setLabels", _labels(_DISKS),
    ),
    *_four(
        _FIREWALLS, "Firewall", "Firewalls",
        (gce_firewalls.insert, gce_firewalls.get, gce_firewalls.list_rules, gce_firewalls.delete),
    ),
    *_four(
        _MACHINES, "Instance", "Instances",
        (
            gce_instances.insert, gce_instances.get, gce_instances.list_machines,
            gce_power.delete,
        ),
    ),
    _on_machine("POST", "start", "Start", gce_power.start),
    _on_machine("POST", "stop", "Stop", gce_power.stop),
    _on_machine("POST", "reset", "Reset", gce_power.reset),
    _on_machine("POST", "attachDisk", "AttachDisk", gce_attachments.attach),
    _on_machine("POST", "detachDisk", "DetachDisk", gce_attachments.detach),
    _on_machine("POST", "setLabels", "SetLabels", _labels(_MACHINES)),
    _on_machine("POST", "setTags", "SetTags", gce_instances.set_tags),
    _on_machine("POST", "setMetadata", "SetMetadata", gce_instances.set_metadata),
    _on_machine("GET", "getSerialPortOutput", "GetSerialPortOutput", gce_instances.serial_port),
    _on_machine("GET", "getScreenshot", "GetScreenshot", gce_instances.screenshot),
    *_looked_at(
        "/global/networks", ("Network", "Networks"), "compute.networks",
        (gce_given.get_network, gce_given.list_networks),
    ),
    *_looked_at(
        _SUBNETS, ("Subnetwork", "Subnetworks"), "compute.subnetworks",
        (gce_given.get_subnet, gce_given.list_subnets),
    ),
    _route(
        "POST", f"{_SUBNETS}/{{resource}}/testIamPermissions", "TestIamPermissionsSubnetwork",
        "", gce_permissions.test_resource,
    ),
    *_looked_at(
        "/zones", ("Zone", "Zones"), "compute.zones", (gce_given.get_zone, gce_given.list_zones)
    ),
    *_looked_at(
        "/regions", ("Region", "Regions"), "compute.regions",
        (gce_given.get_region, gce_given.list_regions),
    ),
    *_looked_at(
        f"{_ZONE}/machineTypes", ("MachineType", "MachineTypes"), "compute.machineTypes",
        (gce_given.get_machine_type, gce_given.list_machine_types),
    ),
    *_looked_at(
        f"{_ZONE}/diskTypes", ("DiskType", "DiskTypes"), "compute.diskTypes",
        (gce_given.get_disk_type, gce_given.list_disk_types),
    ),
    _route("GET", "", "GetProject", "compute.projects.get", gce_given.get_project),
)  # fmt: skip
