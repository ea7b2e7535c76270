# References: Azure REST API, Virtual Machines - Create Or Update: osDisk, dataDisks; WALinuxAgent
# and azure-vm-utils udev rules: names of disks on SCSI and NVMe machines.
"""Disks of a machine: which may be attached, where the guest sees them, how they come and go."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from imageport.model import GIB
from imageport.sandbox.azure.arm_body import check_name, one_of, whole_number
from imageport.sandbox.azure.arm_errors import ArmError, bad_parameter, not_allowed, required
from imageport.sandbox.azure.arm_messages import ArmRequest
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.machine_checks import Booted
from imageport.sandbox.azure.machine_sizes import MachineSize
from imageport.sandbox.azure.managed_disks import TYPE

Json = dict[str, Any]
OS_LUN = -1
"""Stands for the OS disk, which has no LUN."""
ENGINE_DISK_BYTES = 30 * GIB
"""OS disk of a machine made from an image; sparse and empty, its system runs elsewhere."""
MOST_LUN = 63


def device_name(machine: Json, lun: int) -> str:
    """Return the name below ``/dev`` that udev gives a disk."""
    if lun == OS_LUN:
        return "disk/azure/root"
    if machine["imageport"]["controller"] == "NVMe":
        return f"disk/azure/data/by-lun/{lun}"
    return f"disk/azure/scsi1/lun{lun}"


def check_attachable(
    emulator: Emulator, request: ArmRequest, disk_id: str, zones: list[str]
) -> Json:
    """Return the disk that is to be attached; refuses what Azure refuses."""
    found = emulator.resources.get(disk_id)
    emulator.check_linked(request, f"{TYPE}/read", disk_id)
    if found is None or found["type"] != TYPE:
        raise ArmError(404, "NotFound", f"Disk {disk_id} is not found.", target="managedDisk.id")
    key = str(found["id"]).lower()
    name = found["name"]
    if found["properties"]["provisioningState"] != "Succeeded":
        state = found["properties"]["provisioningState"]
        raise not_allowed(f"Disk '{name}' cannot be attached: it is in state '{state}'.")
    for machine in emulator.resources.of_type("Microsoft.Compute/virtualMachines"):
        if key in machine["imageport"]["disks"] and machine["id"].lower() != request.key:
            text = (
                f"Disk '{name}' cannot be attached as the disk is already owned by VM "
                f"'{machine['id']}'."
            )
            raise ArmError(409, "ConflictingUserInput", text, target="dataDisk")
    state = emulator.store.state(key)
    if state not in {"Unattached", "Attached"}:
        text = f"Disk '{name}' cannot be attached: it is in the '{state}' state."
        raise ArmError(409, "ConflictingUserInput", text, target="dataDisk")
    if found.get("zones", []) != zones:
        text = (
            f"Disk {disk_id} cannot be attached to the VM because it is not in zone "
            f"'{', '.join(zones)}'."
        )
        raise ArmError(400, "BadRequest", text)
    return found


def booted_from(disk: Json, asked_type: str) -> Booted:
    """Return what a disk has to boot from; refuses an OS type that is not the disk's."""
    properties = disk["properties"]
    if not asked_type:
        raise required("osDisk.osType")
    kept = properties.get("osType") or ""
    if not kept:
        text = f"Disk '{disk['name']}' is a data disk: it has no osType."
        raise ArmError(409, "OperationNotAllowed", text, target="osDisk")
    if asked_type != kept:
        text = f"Changing property 'osDisk.osType' from '{kept}' to '{asked_type}' is not allowed."
        raise ArmError(409, "PropertyChangeNotAllowed", text, target="osDisk.osType")
    capabilities = properties.get("supportedCapabilities") or {}
    controllers = str(capabilities.get("diskControllerTypes") or "SCSI").split(",")
    return Booted(
        os_type=kept,
        generation=properties.get("hyperVGeneration") or "V1",
        controllers=tuple(item.strip() for item in controllers),
        architecture=capabilities.get("architecture") or "x64",
    )


def check_data_disks(
    emulator: Emulator, request: ArmRequest, asked: list[Json], size: MachineSize, zones: list[str]
) -> dict[str, Json]:
    """Return disk id → its entry, for all that are not to be detached."""
    found: dict[str, Json] = {}
    taken: set[int] = set()
    wanted = [item for item in asked if not item.get("toBeDetached")]
    if len(wanted) > size.data_disks:
        text = (
            "The maximum number of data disks allowed to be attached to a VM of this size is "
            f"{size.data_disks}."
        )
        raise not_allowed(text)
    for entry in wanted:
        lun = whole_number(entry.get("lun"), "dataDisk.lun", 0, MOST_LUN)
        if lun in taken:
            text = f"A disk at LUN {lun} already exists."
            raise ArmError(409, "InvalidParameter", text, target="dataDisk.lun")
        taken.add(lun)
        option = one_of(entry.get("createOption"), ("Attach",), "dataDisk.createOption")
        disk_id = str((entry.get("managedDisk") or {}).get("id") or "")
        if not disk_id:
            raise required("dataDisk.managedDisk.id")
        disk = check_attachable(emulator, request, disk_id, zones)
        key = str(disk["id"]).lower()
        if key in found:
            text = f"Disk '{disk['name']}' is attached at two LUNs."
            raise bad_parameter("dataDisk.managedDisk.id", text)
        found[key] = {
            "lun": lun,
            "name": disk["name"],
            "createOption": option,
            "caching": one_of(
                entry.get("caching"), ("None", "ReadOnly", "ReadWrite"), "dataDisk.caching", "None"
            ),
            "deleteOption": delete_option(entry, "Detach"),
            "managedDisk": {"id": disk["id"], "storageAccountType": disk["sku"]["name"]},
            "toBeDetached": False,
        }
    return found


def delete_option(entry: Json, default: str) -> str:
    """Return what becomes of a disk or an interface when its machine is deleted."""
    return one_of(entry.get("deleteOption"), ("Delete", "Detach"), "deleteOption", default)


def make_engine_disk(emulator: Emulator, request: ArmRequest, machine: Json) -> Json:
    """Make the OS disk of a machine that comes from an image; it gets the machine's tags."""
    asked = machine["properties"]["storageProfile"].get("osDisk") or {}
    name = str(asked.get("name") or "") or f"{machine['name']}_OsDisk_1_{uuid.uuid4().hex}"
    check_name(name, "osDisk.name")
    disk_id = f"{machine['id'].split('/providers/')[0]}/providers/{TYPE}/{name}"
    emulator.check_linked(request, f"{TYPE}/write", disk_id)
    if emulator.resources.get(disk_id) is not None:
        text = f"Disk {name} already exists in resource group."
        raise ArmError(409, "ConflictingUserInput", text, target="disk.name")
    emulator.store.create_empty(disk_id.lower(), ENGINE_DISK_BYTES)
    sku = (asked.get("managedDisk") or {}).get("storageAccountType") or "Standard_LRS"
    document: Json = {
        "id": disk_id,
        "name": name,
        "type": TYPE,
        "location": machine["location"],
        # Copied when the disk is made; later changes of the machine's tags do not reach it.
        "tags": dict(machine["tags"]),
        "sku": {"name": sku, "tier": sku.split("_")[0]},
        "properties": {
            "osType": "Linux",
            "hyperVGeneration": "V2",
            "creationData": {
                "createOption": "FromImage",
                "imageReference": machine["properties"]["storageProfile"]["imageReference"],
            },
            "supportedCapabilities": {"diskControllerTypes": "SCSI, NVMe", "architecture": "x64"},
            "networkAccessPolicy": "AllowAll",
            "publicNetworkAccess": "Enabled",
            "provisioningState": "Succeeded",
            "uniqueId": str(uuid.uuid4()),
            "timeCreated": datetime.now(UTC).isoformat(),
        },
    }
    if "zones" in machine:
        document["zones"] = list(machine["zones"])
    emulator.resources.put(document)
    return document


def devices(emulator: Emulator, machine: Json) -> dict[str, Path]:
    """Return name below ``/dev`` → file, for all disks of a machine."""
    return {
        device_name(machine, lun): emulator.store.path(key)
        for key, lun in machine["imageport"]["disks"].items()
    }


def release(emulator: Emulator, key: str) -> None:
    """Let go of a disk; one that is gone is no error."""
    if emulator.resources.get(key) is not None:
        emulator.store.set_attached(key, attached=False)
