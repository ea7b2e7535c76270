# References: Azure Resource Manager RPC; "Azure resource provider operations" for the actions.
"""From a path to the one who answers it, with the action that the credential needs."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from imageport.sandbox.azure import (
    boot_diagnostics,
    given_resources,
    machine_power,
    managed_disks,
    managed_snapshots,
    network_groups,
    network_parts,
    region_facts,
    storage_resources,
    subscription_facts,
    virtual_machines,
)
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.emulator import Emulator

Handler = Callable[[Emulator, ArmRequest], ArmAnswer]
_GROUP = r"/subscriptions/(?P<subscription>[^/]+)/resourceGroups/(?P<group>[^/]+)"
_COMPUTE = _GROUP + r"/providers/Microsoft\.Compute"
_NETWORK = _GROUP + r"/providers/Microsoft\.Network"
_SUBSCRIPTION = r"/subscriptions/(?P<subscription>[^/]+)"
_DISK = r"/(?P<kind>disks|snapshots)"
_NAME = r"/(?P<name>[^/]+)"
_MACHINE = r"/virtualMachines" + _NAME


@dataclass(frozen=True, slots=True)
class Route:
    """One kind of path and method."""

    method: str
    pattern: re.Pattern[str]
    action: str
    """With ``{kind}`` where disks and snapshots share a route."""
    handler: Handler
    verb: str = ""
    """The last part of a path that is no part of the resource's id."""


def _route(method: str, pattern: str, action: str, handler: Handler, verb: str = "") -> Route:
    tail = f"/{verb}" if verb else ""
    return Route(method, re.compile(pattern + tail, re.IGNORECASE), action, handler, verb)


def _operations(provider: str, collection: str) -> Route:
    pattern = (
        _SUBSCRIPTION + f"/providers/{re.escape(provider)}/locations/(?P<location>[^/]+)"
        f"/{collection}/(?P<operation>[^/]+)"
    )
    action = f"{provider}/locations/{collection}/read"
    return _route("GET", pattern, action, subscription_facts.get_operation)


def _given(path: str, action: str) -> Route:
    """Return the route to what exists from the start and is only looked at."""
    return _route("GET", path, action, given_resources.get)


def _is_disk(request: ArmRequest) -> bool:
    return request.names["kind"] == "disks"


def _disks_put(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    answer = managed_disks.put if _is_disk(request) else managed_snapshots.put
    return answer(emulator, request)


def _disks_patch(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    answer = managed_disks.patch if _is_disk(request) else managed_snapshots.patch
    return answer(emulator, request)


_KIND = "Microsoft.Compute/{kind}"
_VM = "Microsoft.Compute/virtualMachines"
_NSG = "Microsoft.Network/networkSecurityGroups"
_NIC = "Microsoft.Network/networkInterfaces"
_SUBNETS = "Microsoft.Network/virtualNetworks/subnets"
_NSG_PATH = _NETWORK + "/networkSecurityGroups"
_NIC_PATH = _NETWORK + "/networkInterfaces"

ROUTES = (
    _route("PUT", _COMPUTE + _DISK + _NAME, f"{_KIND}/write", _disks_put),
    _route("PATCH", _COMPUTE + _DISK + _NAME, f"{_KIND}/write", _disks_patch),
    _route("GET", _COMPUTE + _DISK + _NAME, f"{_KIND}/read", storage_resources.get),
    _route("DELETE", _COMPUTE + _DISK + _NAME, f"{_KIND}/delete", storage_resources.delete),
    _route("GET", _COMPUTE + _DISK, f"{_KIND}/read", storage_resources.list_group),
    _route(
        "POST", _COMPUTE + _DISK + _NAME, f"{_KIND}/beginGetAccess/action",
        storage_resources.begin_get_access, "beginGetAccess",
    ),
    _route(
        "POST", _COMPUTE + _DISK + _NAME, f"{_KIND}/endGetAccess/action",
        storage_resources.end_get_access, "endGetAccess",
    ),
    _route("PUT", _COMPUTE + _MACHINE, f"{_VM}/write", virtual_machines.put),
    _route("PATCH", _COMPUTE + _MACHINE, f"{_VM}/write", virtual_machines.patch),
    _route("GET", _COMPUTE + _MACHINE, f"{_VM}/read", virtual_machines.get),
    _route("DELETE", _COMPUTE + _MACHINE, f"{_VM}/delete", machine_power.delete),
    _route("GET", _COMPUTE + "/virtualMachines", f"{_VM}/read", virtual_machines.list_group),
    _route(
        "GET", _COMPUTE + _MACHINE, f"{_VM}/instanceView/read",
        virtual_machines.instance_view, "instanceView",
    ),
    _route("POST", _COMPUTE + _MACHINE, f"{_VM}/start/action", machine_power.start, "start"),
    _route(
        "POST", _COMPUTE + _MACHINE, f"{_VM}/powerOff/action", machine_power.power_off, "powerOff"
    ),
    _route(
        "POST", _COMPUTE + _MACHINE, f"{_VM}/deallocate/action",
        machine_power.deallocate, "deallocate",
    ),
    _route(
        "POST", _COMPUTE + _MACHINE, f"{_VM}/retrieveBootDiagnosticsData/action",
        boot_diagnostics.retrieve, "retrieveBootDiagnosticsData",
    ),
    _given(_COMPUTE + "/images" + _NAME, "Microsoft.Compute/images/read"),
    _given(_COMPUTE + "/diskAccesses" + _NAME, "Microsoft.Compute/diskAccesses/read"),
    _given(
        _COMPUTE + "/diskEncryptionSets" + _NAME, "Microsoft.Compute/diskEncryptionSets/read"
    ),
    _given(_NETWORK + "/virtualNetworks" + _NAME, "Microsoft.Network/virtualNetworks/read"),
    _given(
        _NETWORK + r"/virtualNetworks/(?P<network>[^/]+)/subnets" + _NAME, f"{_SUBNETS}/read"
    ),
    _route("PUT", _NSG_PATH + _NAME, f"{_NSG}/write", network_groups.put),
    _route("PATCH", _NSG_PATH + _NAME, f"{_NSG}/write", network_groups.patch),
    _route("GET", _NSG_PATH + _NAME, f"{_NSG}/read", network_groups.get),
    _route("DELETE", _NSG_PATH + _NAME, f"{_NSG}/delete", network_groups.delete),
    _route("GET", _NSG_PATH, f"{_NSG}/read", network_groups.list_group),
    _route("GET", _NIC_PATH + _NAME, f"{_NIC}/read", network_parts.get_interface),
    _route("DELETE", _NIC_PATH + _NAME, f"{_NIC}/delete", network_parts.delete_interface),
    _route("GET", _NIC_PATH, f"{_NIC}/read", network_parts.list_interfaces),
    _route(
        "GET", _SUBSCRIPTION + r"/providers/Microsoft\.Compute/skus",
        "Microsoft.Compute/skus/read", region_facts.list_skus,
    ),
    _route(
        "GET",
        _SUBSCRIPTION + r"/providers/Microsoft\.Compute/locations/(?P<location>[^/]+)/usages",
        "Microsoft.Compute/locations/usages/read", region_facts.list_usages,
    ),
    _operations("Microsoft.Compute", "DiskOperations"),
    _operations("Microsoft.Compute", "operations"),
    _operations("Microsoft.Network", "operations"),
    _route(
        "GET", r"(?P<permitted>/subscriptions/(?P<subscription>[^/]+)(?:/.+?)?)"
        r"/providers/Microsoft\.Authorization/permissions",
        "Microsoft.Authorization/permissions/read", subscription_facts.list_permissions,
    ),
    _route(
        "GET", _GROUP, "Microsoft.Resources/subscriptions/resourceGroups/read",
        subscription_facts.get_group,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Match:
    """A route with the names of the path, and the ARM id that the path speaks of."""

    route: Route
    names: dict[str, str]
    scope: str

    @property
    def action(self) -> str:
        """Return the action that the credential needs."""
        return self.route.action.format(kind=self.names.get("kind", ""))


def find_route(method: str, path: str) -> Match | None:
    """Return who answers; None when nobody does."""
    for route in ROUTES:
        found = route.pattern.fullmatch(path)
        if found is None or route.method != method:
            continue
        names = {name: value for name, value in found.groupdict().items() if value is not None}
        if "kind" in names:
            names["kind"] = names["kind"].lower()
        scope = path[: -len(route.verb) - 1] if route.verb else path
        return Match(route, names, scope)
    return None


def is_known(path: str) -> bool:
    """Tell whether the path has an answer for another method."""
    return any(route.pattern.fullmatch(path) for route in ROUTES)
