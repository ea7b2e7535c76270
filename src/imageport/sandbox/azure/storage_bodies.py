# References: Azure REST API, Disks - Create Or Update, Snapshots - Create Or Update, 2026-03-02.
"""What disks and snapshots have in common: members of their bodies, and values that fit."""

from __future__ import annotations

from typing import Any

from imageport.model import GIB
from imageport.sandbox.azure.account import DISK_ACCESS_ID, DISK_ENCRYPTION_SET_ID
from imageport.sandbox.azure.arm_body import READ_ONLY, Members, one_of
from imageport.sandbox.azure.arm_errors import ArmError, bad_parameter, required
from imageport.sandbox.azure.arm_messages import ArmRequest
from imageport.sandbox.azure.emulator import Emulator

Json = dict[str, Any]

CREATION: Members = {
    "createOption": None, "sourceResourceId": None, "uploadSizeBytes": None,
    "imageReference": {"id": None, "lun": None}, "logicalSectorSize": None,
    "sourceUniqueId": None, "performancePlus": None, "storageAccountId": None, "sourceUri": None,
}  # fmt: skip
PROPERTIES: Members = {
    "osType": None, "hyperVGeneration": None, "creationData": CREATION, "diskSizeGB": None,
    "supportedCapabilities": {
        "diskControllerTypes": None, "acceleratedNetwork": None, "architecture": None,
    },
    "encryption": {"type": None, "diskEncryptionSetId": None},
    "networkAccessPolicy": None, "diskAccessId": None, "publicNetworkAccess": None,
    "dataAccessAuthMode": None, "securityProfile": {"securityType": None},
    "supportsHibernation": None, "completionPercent": None,
    # Read-only.
    "timeCreated": None, "diskSizeBytes": None, "uniqueId": None, "provisioningState": None,
    "diskState": None,
}  # fmt: skip
TOP: Members = {**READ_ONLY, "location": None, "tags": None, "sku": {"name": None, "tier": None}}
POLICIES = ("AllowAll", "AllowPrivate", "DenyAll")
ENCRYPTIONS = (
    "EncryptionAtRestWithPlatformKey", "EncryptionAtRestWithCustomerKey",
    "EncryptionAtRestWithPlatformAndCustomerKeys",
)  # fmt: skip
CONTROLLERS = ("SCSI", "NVMe")
KEPT = (
    "osType", "hyperVGeneration", "supportedCapabilities", "encryption", "networkAccessPolicy",
    "diskAccessId", "publicNetworkAccess", "dataAccessAuthMode", "securityProfile",
    "supportsHibernation",
)  # fmt: skip
INHERITED = ("osType", "hyperVGeneration", "supportedCapabilities", "securityProfile", "encryption")
"""What a copy has of its source unless it says otherwise."""


def checked_properties(emulator: Emulator, request: ArmRequest, asked: Json) -> Json:
    """Return the properties of a body that are kept, as the service writes them."""
    found: Json = {name: asked[name] for name in KEPT if asked.get(name) is not None}
    if "osType" in found:
        found["osType"] = one_of(found["osType"], ("Windows", "Linux"), "disk.osType")
    if "hyperVGeneration" in found:
        one_of(found["hyperVGeneration"], ("V1", "V2"), "disk.hyperVGeneration")
    security = found.get("securityProfile") or {}
    if security:
        kind = one_of(security.get("securityType"), ("TrustedLaunch", "Standard"), "securityType")
        if kind == "TrustedLaunch" and found.get("hyperVGeneration") != "V2":
            text = "Trusted Launch is supported by Hypervisor Generation 2 only."
            raise bad_parameter("disk.securityProfile.securityType", text)
    _check_capabilities(found.get("supportedCapabilities") or {})
    _check_encryption(emulator, request, found)
    check_network_access(found)
    return found


def check_network_access(properties: Json) -> None:
    """Refuse a policy and an access resource that do not go together."""
    policy = one_of(
        properties.get("networkAccessPolicy"), POLICIES, "networkAccessPolicy", "AllowAll"
    )
    properties["networkAccessPolicy"] = policy
    properties.setdefault("publicNetworkAccess", "Enabled")
    access = str(properties.get("diskAccessId") or "")
    if policy == "AllowPrivate" and not access:
        raise required("diskAccessId")
    if policy != "AllowPrivate" and access:
        text = "diskAccessId can be set only when networkAccessPolicy is 'AllowPrivate'."
        raise bad_parameter("diskAccessId", text)
    if access and access.lower() != DISK_ACCESS_ID.lower():
        raise ArmError(404, "NotFound", f"Disk access {access} is not found.")


def size_gb(size_bytes: int) -> int:
    """Return the size that ARM shows: whole GiB, rounded up."""
    return -(-size_bytes // GIB)


def _check_capabilities(capabilities: Json) -> None:
    controllers = str(capabilities.get("diskControllerTypes") or "")
    if controllers:
        named = [item.strip() for item in controllers.split(",")]
        if not set(named) <= set(CONTROLLERS):
            text = f"The value '{controllers}' of 'diskControllerTypes' is not valid."
            raise bad_parameter("supportedCapabilities.diskControllerTypes", text)
    if capabilities.get("architecture"):
        one_of(capabilities["architecture"], ("x64", "Arm64"), "architecture")


def _check_encryption(emulator: Emulator, request: ArmRequest, properties: Json) -> None:
    encryption = dict(properties.get("encryption") or {})
    set_id = str(encryption.get("diskEncryptionSetId") or "")
    default = ENCRYPTIONS[1] if set_id else ENCRYPTIONS[0]
    kind = one_of(encryption.get("type"), ENCRYPTIONS, "encryption.type", default)
    encryption["type"] = kind
    properties["encryption"] = encryption
    if kind != ENCRYPTIONS[0] and not set_id:
        raise required("encryption.diskEncryptionSetId")
    if kind == ENCRYPTIONS[0] and set_id:
        text = f"A disk encryption set cannot be used with encryption type '{kind}'."
        raise bad_parameter("encryption.type", text)
    if set_id:
        emulator.check_linked(request, "Microsoft.Compute/diskEncryptionSets/read", set_id)
        if set_id.lower() != DISK_ENCRYPTION_SET_ID.lower():
            raise ArmError(404, "NotFound", f"Disk encryption set {set_id} is not found.")
