# References: Azure REST API, Network Interfaces - Get, Delete, List;
# VirtualMachineNetworkInterfaceConfiguration.
"""Network interfaces, which only machines make here."""

from __future__ import annotations

import ipaddress
import uuid
from typing import Any

from imageport.sandbox.azure.account import BOOT_SUBNET_ID, LOCATION, SUBNET_ID
from imageport.sandbox.azure.arm_errors import ArmError, missing_reference, not_found, required
from imageport.sandbox.azure.arm_messages import ArmAnswer, ArmRequest
from imageport.sandbox.azure.emulator import Emulator
from imageport.sandbox.azure.network_groups import INTERFACES, NETWORK_OPERATIONS, TYPE
from imageport.sandbox.azure.storage_resources import page_of

Json = dict[str, Any]
SUBNETS = {SUBNET_ID.lower(): "10.20.0.0/24", BOOT_SUBNET_ID.lower(): "10.20.1.0/24"}
_RESERVED = 4
"""Azure keeps the first four addresses and the last one of every subnet."""


def check_interfaces(emulator: Emulator, request: ArmRequest, profile: Json) -> list[Json]:
    """Return the documents of the interfaces that a new machine asks for inline."""
    configurations = profile.get("networkInterfaceConfigurations") or []
    if not configurations:
        text = "Virtual machine must have at least one network interface."
        raise ArmError(400, "BadRequest", text, target="networkProfile")
    if not profile.get("networkApiVersion"):
        raise required("networkProfile.networkApiVersion")
    if profile["networkApiVersion"] not in {"2020-11-01", "2022-11-01"}:
        text = f"The value '{profile['networkApiVersion']}' of 'networkApiVersion' is not valid."
        raise ArmError(400, "InvalidParameter", text, target="networkProfile.networkApiVersion")
    return [_interface(emulator, request, item) for item in configurations]


def _interface(emulator: Emulator, request: ArmRequest, configuration: Json) -> Json:
    name = str(configuration.get("name") or "")
    if not name:
        raise required("networkInterfaceConfigurations.name")
    properties = configuration.get("properties") or {}
    group = (properties.get("networkSecurityGroup") or {}).get("id")
    if group:
        emulator.check_linked(request, f"{TYPE}/join/action", group)
        found = emulator.resources.get(group)
        if found is None or found["type"] != TYPE:
            raise missing_reference(group, request.scope)
    emulator.check_linked(request, f"{INTERFACES}/write", request.scope)
    emulator.check_linked(request, f"{INTERFACES}/join/action", request.scope)
    addresses = properties.get("ipConfigurations") or []
    if not addresses:
        raise required("networkInterfaceConfigurations.ipConfigurations")
    # One machine with this name exists at a time; what an earlier one left behind does not clash.
    own = f"{name}-{uuid.uuid4().hex[:8]}"
    document: Json = {
        "id": f"{request.scope.split('/providers/')[0]}/providers/{INTERFACES}/{own}",
        "name": own,
        "type": INTERFACES,
        "location": LOCATION,
        "tags": dict(configuration.get("tags") or {}),
        "properties": {
            "provisioningState": "Succeeded",
            "primary": bool(properties.get("primary", True)),
            "virtualMachine": {"id": request.scope},
            "ipConfigurations": [_address(emulator, request, item) for item in addresses],
        },
    }
    if group:
        document["properties"]["networkSecurityGroup"] = {"id": group}
    return document


def _address(emulator: Emulator, request: ArmRequest, configuration: Json) -> Json:
    name = str(configuration.get("name") or "")
    if not name:
        raise required("ipConfigurations.name")
    properties = configuration.get("properties") or {}
    subnet = str((properties.get("subnet") or {}).get("id") or "")
    if not subnet:
        raise required("ipConfigurations.subnet")
    emulator.check_linked(request, "Microsoft.Network/virtualNetworks/subnets/join/action", subnet)
    if subnet.lower() not in SUBNETS:
        raise missing_reference(subnet, request.scope)
    found: Json = {
        "subnet": {"id": subnet},
        "primary": True,
        "privateIPAddressVersion": "IPv4",
        "privateIPAddress": _free_address(emulator, subnet.lower()),
    }
    public = properties.get("publicIPAddressConfiguration")
    if public:
        emulator.check_linked(request, "Microsoft.Network/publicIPAddresses/write", request.scope)
        found["publicIPAddress"] = {"id": f"{request.scope}/publicIPAddresses/{name}"}
    return {"name": name, "properties": found}


def _free_address(emulator: Emulator, subnet: str) -> str:
    taken = {
        configuration["properties"]["privateIPAddress"]
        for item in emulator.resources.of_type(INTERFACES)
        for configuration in item["properties"]["ipConfigurations"]
    }
    hosts = list(ipaddress.ip_network(SUBNETS[subnet]).hosts())[_RESERVED - 1 :]
    for host in hosts:
        if str(host) not in taken:
            return str(host)
    text = f"Subnet {subnet} does not have enough capacity for 1 IP addresses."
    raise ArmError(400, "SubnetIsFull", text)


def get_interface(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of an interface."""
    document = emulator.resources.get(request.key)
    if document is None:
        raise not_found(request.scope)
    return ArmAnswer(200, document)


def list_interfaces(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer GET of all interfaces of the resource group."""
    return page_of(emulator, request, list(emulator.resources.of_type(INTERFACES)))


def delete_interface(emulator: Emulator, request: ArmRequest) -> ArmAnswer:
    """Answer DELETE: refused while a machine has the interface."""
    document = emulator.resources.get(request.key)
    if document is None:
        return ArmAnswer(204)
    machine = (document["properties"].get("virtualMachine") or {}).get("id")
    if machine:
        text = (
            f"Network Interface {document['id']} is used by existing resource {machine}. In order "
            "to delete the network interface, it must be dissociated from the resource."
        )
        raise ArmError(400, "NicInUse", text)
    operation = emulator.begin(NETWORK_OPERATIONS, lambda: emulator.resources.drop(request.key))
    return ArmAnswer(202, None, operation, final_state="location")
