# References: Azure REST API, Virtual Machines - Create Or Update, Update, Get, Instance View,
# List; "States and billing status of Azure Virtual Machines".
"""Virtual machines: made, changed and shown."""

from __future__ import annotations

import copy
import uuid
from datetime import UTC, datetime
from typing import Any

from imageport.sandbox.azure import machine_disks, machine_power
from imageport.sandbox.azure.arm_body import (
    check_location,
    check_members,
    check_name,
    check_tags,
    check_zones,
    one_of,
)
from imageport.sandbox.azure.arm_errors import (
    ArmError,
    bad_parameter,
    change_not_allowed,
    not_found,
    required,
)
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.machine_bodies import BODY, UPDATE
from imageport.sandbox.azure.machine_changes import change
from imageport.sandbox.azure.machine_checks import (
    Booted,
    check_fit,
    check_image,
    check_os_profile,
    check_size,
)
from imageport.sandbox.azure.machine_disks import OS_LUN
from imageport.sandbox.azure.machine_power import MACHINE_OPERATIONS
from imageport.sandbox.azure.network_parts import check_interfaces
from imageport.sandbox.azure.storage_resources import page_of

Json = dict[str, Any]
TYPE = "Microsoft.Compute/virtualMachines"
SECRET = ("adminPassword", "customData")
"""What a machine is given and never shows."""


def put(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer PUT: a new machine, or the same one again with other settings."""
    body = request.json()
    check_members(body, BODY, "VirtualMachine")
    check_name(request.name, "vmName", longest=64)
    existing = emulator.resources.get(request.key)
    location = check_location(body, TYPE, existing)
    if existing is not None:
        return _changed(emulator, request, existing, body)
    properties = body.get("properties") or {}
    zones = check_zones(body)
    size = check_size(emulator, request, properties)
    storage = properties.get("storageProfile") or {}
    booted, os_disk, script = _checked_os(emulator, request, properties, zones)
    controller = check_fit(size, booted, storage)
    _check_security(properties.get("securityProfile") or {}, os_disk)
    data = machine_disks.check_data_disks(
        emulator, request, storage.get("dataDisks") or [], size, zones
    )
    if os_disk is not None and os_disk["id"].lower() in data:
        raise bad_parameter("dataDisk.managedDisk.id", "The OS disk is also a data disk.")
    nics = check_interfaces(emulator, request, properties.get("networkProfile") or {})
    machine = _new_machine(request, body, zones)
    machine["location"] = location
    machine["properties"]["hardwareProfile"]["vmSize"] = size.name
    machine["imageport"] |= {
        "controller": controller, "script": script, "generation": booted.generation,
    }  # fmt: skip
    _check_options(properties)
    if os_disk is None:
        os_disk = machine_disks.make_engine_disk(emulator, request, machine)
    # From here on nothing is refused any more: a machine is made whole or not at all.
    _take_disks(emulator, machine, os_disk, data, booted)
    _take_network(emulator, machine, nics, properties["networkProfile"])
    return _create(emulator, machine)


def _new_machine(request: ArmRequest, body: Json, zones: list[str]) -> Json:
    """Return the document of a machine that has nothing yet."""
    machine: Json = {
        "id": request.scope,
        "name": request.name,
        "type": TYPE,
        "tags": check_tags(body.get("tags")),
        "properties": _kept(body["properties"]),
        "imageport": {
            # A machine that is made again under the same name is another one.
            "machine": f"{request.name.lower()}-{uuid.uuid4().hex[:8]}",
            "power": "starting",
            "step": 0,
            "disks": {},
            "nics": [],
        },
    }
    return machine | ({"zones": zones} if zones else {})


def _create(emulator: Emulator, machine: Json) -> ArmAnswer:
    machine["properties"]["provisioningState"] = "Creating"
    emulator.resources.put(machine)
    step = machine_power.next_step(machine)

    def finish() -> None:
        machine_power.check_step(machine, step)
        _allocate(emulator, machine)
        machine["properties"]["provisioningState"] = "Succeeded"
        machine_power.switch_on(emulator, machine)

    def failed() -> None:
        if machine["imageport"]["step"] == step:
            machine["properties"]["provisioningState"] = "Failed"
            machine["imageport"]["power"] = ""

    operation = emulator.begin(MACHINE_OPERATIONS, finish, failed)
    return ArmAnswer(201, show(machine), operation)


def _allocate(emulator: Emulator, machine: Json) -> None:
    if emulator.knobs.take("no_capacity"):
        text = (
            "Allocation failed. We do not have sufficient capacity for the requested VM size in "
            "this region. Read more about improving likelihood of allocation success at "
            "http://aka.ms/allocation-guidance"
        )
        machine["imageport"]["failure"] = ("AllocationFailed", text)
        raise ArmError(409, "AllocationFailed", text)


def patch(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer PATCH: tags, and disks that come or go."""
    body = request.json()
    check_members(body, UPDATE, "VirtualMachineUpdate")
    return _changed(emulator, request, find(emulator, request), body)


def _changed(emulator: Emulator, request: ArmRequest, machine: Json, body: Json) -> ArmAnswer:
    if body.get("zones") and check_zones(body) != machine.get("zones", []):
        raise change_not_allowed("zones")
    operation = change(emulator, request, machine, body)
    return ArmAnswer(200, show(machine), operation)


def find(emulator: Emulator, request: ArmRequest) -> Json:
    """Return the machine that a request names."""
    document = emulator.resources.get(request.key)
    if document is None:
        raise not_found(request.scope)
    return document


def get(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET, with the instance view if ``$expand`` asks for it."""
    machine = find(emulator, request)
    shown = show(machine)
    expand = request.query.get("$expand", "")
    if expand and expand not in {"instanceView", "userData"}:
        raise bad_parameter("$expand", f"The value '{expand}' of '$expand' is not valid.")
    if expand == "instanceView":
        shown["properties"]["instanceView"] = machine_power.view(machine)
    return ArmAnswer(200, shown)


def instance_view(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of the instance view."""
    return ArmAnswer(200, machine_power.view(find(emulator, request)))


def list_group(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of all machines of the resource group."""
    found = [show(item) for item in emulator.resources.of_type(TYPE)]
    return page_of(emulator, request, found)


def show(machine: Json) -> Json:
    """Return a machine as ARM answers it: no instance view, no secrets."""
    shown = copy.deepcopy(machine)
    del shown["imageport"]
    return shown


def _kept(properties: Json) -> Json:
    """Return the properties that a machine shows."""
    found = copy.deepcopy(properties)
    for name in ("provisioningState", "instanceView", "timeCreated", "userData"):
        found.pop(name, None)
    for name in SECRET:
        (found.get("osProfile") or {}).pop(name, None)
    if found.get("osProfile"):
        found["osProfile"].setdefault("secrets", [])
        found["osProfile"]["requireGuestProvisionSignal"] = True
    found["vmId"] = str(uuid.uuid4())
    found["timeCreated"] = datetime.now(UTC).isoformat()
    return found


def _checked_os(
    emulator: Emulator, request: ArmRequest, properties: Json, zones: list[str]
) -> tuple[Booted, Json | None, str]:
    """Return what the machine boots from, its disk if it exists already, and its custom data."""
    storage = properties.get("storageProfile") or {}
    disk = storage.get("osDisk") or {}
    reference = storage.get("imageReference") or {}
    if not disk and not reference:
        raise required("storageProfile.osDisk")
    default = "FromImage" if reference else ""
    option = one_of(
        disk.get("createOption"), ("Attach", "FromImage"), "osDisk.createOption", default
    )
    if option == "FromImage":
        if not reference:
            raise required("imageReference")
        if (disk.get("managedDisk") or {}).get("id"):
            raise bad_parameter(
                "osDisk.managedDisk.id", "Parameter 'osDisk.managedDisk.id' is not allowed."
            )
        return check_image(reference), None, check_os_profile(properties.get("osProfile"))
    if properties.get("osProfile"):
        raise bad_parameter("osProfile", "Parameter 'osProfile' is not allowed.")
    if reference:
        raise bad_parameter("imageReference", "Parameter 'imageReference' is not allowed.")
    disk_id = str((disk.get("managedDisk") or {}).get("id") or "")
    if not disk_id:
        raise required("osDisk.managedDisk.id")
    found = machine_disks.check_attachable(emulator, request, disk_id, zones)
    return machine_disks.booted_from(found, str(disk.get("osType") or "")), found, ""


def _check_security(profile: Json, os_disk: Json | None) -> None:
    kind = str(profile.get("securityType") or "Standard")
    one_of(kind, ("Standard", "TrustedLaunch"), "securityProfile.securityType")
    if os_disk is None:
        return
    of_disk = (os_disk["properties"].get("securityProfile") or {}).get("securityType", "Standard")
    if kind != of_disk:
        text = (
            f"Security type of VM is not compatible with the security type of attached OS Disk: "
            f"'{kind}' and '{of_disk}'."
        )
        raise ArmError(400, "BadRequest", text)


def _take_network(emulator: Emulator, machine: Json, nics: list[Json], asked: Json) -> None:
    """Make the interfaces; afterwards the machine shows them instead of how they were made."""
    shown = []
    for nic, configuration in zip(nics, asked["networkInterfaceConfigurations"], strict=True):
        emulator.resources.put(nic)
        option = machine_disks.delete_option(configuration.get("properties") or {}, "Detach")
        shown.append(
            {
                "id": nic["id"],
                "properties": {"primary": nic["properties"]["primary"], "deleteOption": option},
            }
        )
        machine["imageport"]["nics"].append(str(nic["id"]).lower())
    machine["properties"]["networkProfile"] = {"networkInterfaces": shown}


def _check_options(properties: Json) -> None:
    """Refuse wishes for the time after a machine that do not exist."""
    machine_disks.delete_option(properties["storageProfile"].get("osDisk") or {}, "Detach")
    for nic in properties["networkProfile"]["networkInterfaceConfigurations"]:
        machine_disks.delete_option(nic.get("properties") or {}, "Detach")


def _take_disks(
    emulator: Emulator, machine: Json, disk: Json, data: dict[str, Json], booted: Booted
) -> None:
    storage = machine["properties"]["storageProfile"]
    asked = storage.get("osDisk") or {}
    made = disk["properties"]["creationData"]["createOption"] == "FromImage"
    storage["osDisk"] = {
        "osType": booted.os_type,
        "name": disk["name"],
        "createOption": "FromImage" if made else "Attach",
        "caching": asked.get("caching") or "ReadWrite",
        # What is made with a machine is not deleted with it either, unless asked for.
        "deleteOption": machine_disks.delete_option(asked, "Detach"),
        "managedDisk": {"id": disk["id"], "storageAccountType": disk["sku"]["name"]},
    }
    storage["dataDisks"] = list(data.values())
    storage["diskControllerType"] = machine["imageport"]["controller"]
    disks = {str(disk["id"]).lower(): OS_LUN}
    disks |= {key: entry["lun"] for key, entry in data.items()}
    for key in disks:
        emulator.store.set_attached(key, attached=True)
    machine["imageport"]["disks"] = disks
