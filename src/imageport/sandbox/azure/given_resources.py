# References: Azure REST API: Images, Disk Accesses, Disk Encryption Sets, Virtual Networks,
# Subnets - Get.
"""What exists from the start and is only looked at: an operator made it."""

from __future__ import annotations

from typing import Any

from imageport.sandbox.azure.account import (
    BOOT_SUBNET_ID,
    DISK_ACCESS_ID,
    DISK_ENCRYPTION_SET_ID,
    ENGINE_IMAGE_ID,
    LOCATION,
    SUBNET_ID,
    VIRTUAL_NETWORK_ID,
)
from imageport.sandbox.azure.arm_errors import not_found
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.network_parts import SUBNETS

Json = dict[str, Any]


def get(_emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of one of them."""
    document = _GIVEN.get(request.key)
    if document is None:
        raise not_found(request.scope)
    return ArmAnswer(200, document)


def _given(arm_id: str, kind: str, properties: Json, *, located: bool = True) -> Json:
    document: Json = {
        "id": arm_id,
        "name": arm_id.rsplit("/", 1)[-1],
        "type": kind,
        "properties": {"provisioningState": "Succeeded", **properties},
    }
    return document | ({"location": LOCATION, "tags": {}} if located else {})


def _subnet(arm_id: str) -> Json:
    facts = {
        "addressPrefix": SUBNETS[arm_id.lower()],
        "delegations": [],
        "defaultOutboundAccess": False,
    }
    return _given(arm_id, "Microsoft.Network/virtualNetworks/subnets", facts, located=False)


_SUBNETS = [_subnet(SUBNET_ID), _subnet(BOOT_SUBNET_ID)]
_IMAGE = {
    "hyperVGeneration": "V2",
    "storageProfile": {
        "osDisk": {"osType": "Linux", "osState": "Generalized", "diskSizeGB": 30},
        "dataDisks": [],
    },
}
_NETWORK = {"addressSpace": {"addressPrefixes": ["10.20.0.0/16"]}, "subnets": _SUBNETS}
_ALL = [
    *_SUBNETS,
    _given(VIRTUAL_NETWORK_ID, "Microsoft.Network/virtualNetworks", _NETWORK),
    _given(ENGINE_IMAGE_ID, "Microsoft.Compute/images", _IMAGE),
    _given(DISK_ACCESS_ID, "Microsoft.Compute/diskAccesses", {}),
    _given(
        DISK_ENCRYPTION_SET_ID,
        "Microsoft.Compute/diskEncryptionSets",
        {"encryptionType": "EncryptionAtRestWithCustomerKey"},
    ),
]
_GIVEN = {str(item["id"]).lower(): item for item in _ALL}
