# References: Azure REST API, Permissions - List For Resource Group (2022-04-01), Resource Groups -
# Get; ARM RPC, "Async API": Azure-AsyncOperation and Location.
"""The subscription's own answers: operations, permissions, the resource group."""

from __future__ import annotations

from imageport.sandbox.azure.account import GROUP_ID, LOCATION, RESOURCE_GROUP
from imageport.sandbox.azure.arm_errors import ArmError
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.emulator import Emulator

ONLY_STATUS = "location"
"""A query with ``monitor=true`` asks as the Location header does: 202, then the result."""


def get_operation(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer where a long-running operation is, in either of the two ways."""
    operation = emulator.operations.find(request.names["operation"])
    if operation is None:
        text = f"The operation '{request.names['operation']}' was not found."
        raise ArmError(404, "NotFound", text)
    if request.query.get("monitor") != "true":
        return ArmAnswer(200, operation.document())
    if operation.status == "InProgress":
        return ArmAnswer(202, None, operation, final_state="location")
    if operation.error is not None:
        raise operation.error
    return ArmAnswer(200, operation.result)


def list_permissions(emulator: Emulator, _request: ArmRequest) -> ArmAnswer:
    """Answer what the credential may do: all, but for what the knob took away."""
    denied = emulator.knobs.denied
    data = [item for item in denied if "/blobs/" in item.lower() or item.endswith("/blobs")]
    role = {
        "actions": ["*"],
        "notActions": [item for item in denied if item not in data],
        "dataActions": ["*"],
        "notDataActions": data,
    }
    return ArmAnswer(200, {"value": [role]})


def get_group(_emulator: Emulator, _request: ArmRequest) -> ArmAnswer:
    """Answer GET of the resource group."""
    body = {
        "id": GROUP_ID,
        "name": RESOURCE_GROUP,
        "type": "Microsoft.Resources/resourceGroups",
        "location": LOCATION,
        "properties": {"provisioningState": "Succeeded"},
    }
    return ArmAnswer(200, body)
