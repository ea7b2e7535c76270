# References: Azure REST API, Virtual Machines - Update: data disks that come and go.
"""What may change of a machine that exists."""

from __future__ import annotations

from typing import Any

from imageport.sandbox.azure import machine_disks
from imageport.sandbox.azure.arm_body import check_tags
from imageport.sandbox.azure.arm_errors import (
    bad_parameter,
    change_not_allowed,
    not_allowed,
)
from imageport.sandbox.azure.arm_messages import ArmRequest
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.machine_checks import read_custom_data
from imageport.sandbox.azure.machine_disks import OS_LUN
from imageport.sandbox.azure.machine_power import MACHINE_OPERATIONS, refuse_deleting
from imageport.sandbox.azure.machine_sizes import find_size
from imageport.sandbox.azure.operations import Operation

Json = dict[str, Any]


def change(emulator: Emulator, request: ArmRequest, machine: Json, body: Json) -> Operation:
    """Change tags, diagnostics and data disks; everything else has to be as it was."""
    refuse_deleting(machine, "Write")
    properties = body.get("properties") or {}
    _check_unchanged(machine, properties)
    if "tags" in body:
        machine["tags"] = check_tags(body["tags"])
    if properties.get("diagnosticsProfile"):
        machine["properties"]["diagnosticsProfile"] = properties["diagnosticsProfile"]
    asked = (properties.get("storageProfile") or {}).get("dataDisks")
    going: list[tuple[str, str]] = []
    if asked is not None:
        going = _change_disks(emulator, request, machine, asked)
    made = machine["properties"]["provisioningState"] == "Succeeded"
    if made:
        machine["properties"]["provisioningState"] = "Updating"
    emulator.resources.put(machine)

    def finish() -> None:
        for key, _device in going:
            machine_disks.release(emulator, key)
        if machine["properties"]["provisioningState"] == "Updating":
            machine["properties"]["provisioningState"] = "Succeeded"

    return emulator.begin(MACHINE_OPERATIONS, finish, finish)


def _change_disks(
    emulator: Emulator, request: ArmRequest, machine: Json, asked: list[Json]
) -> list[tuple[str, str]]:
    """Attach and detach; returns the disks that leave with the end of the operation."""
    size = find_size(machine["properties"]["hardwareProfile"]["vmSize"])
    if size is None:  # it was checked when the machine was made
        raise bad_parameter("vmSize", "The machine's size does not exist.")
    zones = list(machine.get("zones", []))
    wanted = machine_disks.check_data_disks(emulator, request, asked, size, zones)
    facts = machine["imageport"]
    luns = {key: entry["lun"] for key, entry in wanted.items()}
    if luns == {key: lun for key, lun in facts["disks"].items() if lun != OS_LUN}:
        return []
    if machine["properties"]["provisioningState"] in {"Creating", "Updating"}:
        text = (
            f"Operation 'Write' is not allowed on VM '{machine['name']}' while another one that "
            "changes its disks is in progress."
        )
        raise not_allowed(text)
    kept = {key: lun for key, lun in facts["disks"].items() if lun == OS_LUN}
    going = []
    for key, lun in facts["disks"].items():
        if lun == OS_LUN:
            continue
        if key in wanted and wanted[key]["lun"] != lun:
            raise change_not_allowed("dataDisk.lun")
        if key not in wanted:
            device = machine_disks.device_name(machine, lun)
            emulator.hypervisor.unplug(facts["machine"], device)
            going.append((key, device))
    for key, entry in wanted.items():
        if key not in facts["disks"]:
            emulator.store.set_attached(key, attached=True)
            device = machine_disks.device_name(machine, entry["lun"])
            emulator.hypervisor.plug(facts["machine"], device, emulator.store.path(key))
        kept[key] = entry["lun"]
    facts["disks"] = kept
    machine["properties"]["storageProfile"]["dataDisks"] = list(wanted.values())
    return going


def _check_unchanged(machine: Json, asked: Json) -> None:
    """Refuse changes that Azure refuses, and those that this emulator does not make."""
    kept = machine["properties"]
    size = (asked.get("hardwareProfile") or {}).get("vmSize")
    if size and size.lower() != kept["hardwareProfile"]["vmSize"].lower():
        raise not_allowed("The sandbox does not resize machines.")
    custom = (asked.get("osProfile") or {}).get("customData")
    if custom is not None and read_custom_data(str(custom)) != machine["imageport"]["script"]:
        raise change_not_allowed("osProfile.customData")
    for name in ("computerName", "adminUsername"):
        value = (asked.get("osProfile") or {}).get(name)
        if value and value != (kept.get("osProfile") or {}).get(name):
            raise change_not_allowed(f"osProfile.{name}")
    storage = asked.get("storageProfile") or {}
    disk = ((storage.get("osDisk") or {}).get("managedDisk") or {}).get("id")
    if disk and disk.lower() != kept["storageProfile"]["osDisk"]["managedDisk"]["id"].lower():
        raise not_allowed("The sandbox does not swap OS disks.")
    reference = storage.get("imageReference")
    if reference and reference != kept["storageProfile"].get("imageReference"):
        raise change_not_allowed("imageReference")
