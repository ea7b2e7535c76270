"""Machines that Azure does not make, and why."""

from __future__ import annotations

import copy
import uuid
from typing import Any

import pytest

from imageport.sandbox.azure.account import GROUP_ID, LOCATION, RESOURCE_GROUP, SUBNET_ID
from tests.sandbox.azure.conftest import DEBIAN
from tests.sandbox.azure.test_azure_machines import attach, booted, engine_body

SMALLEST_KEY = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQ=="


def refusal(azure: Any, refused: Any, body: Any) -> tuple[str, str, int]:
    """Ask for a machine that is refused, and check that nothing of it is left."""
    name = f"refused-{uuid.uuid4().hex[:12]}"
    call = azure.compute.virtual_machines.begin_create_or_update
    found: tuple[str, str, int] = refused(call, RESOURCE_GROUP, name, body)
    machines = azure.compute.virtual_machines
    assert refused(machines.get, RESOURCE_GROUP, name)[0] == "ResourceNotFound"
    nics = azure.ask("GET", f"{GROUP_ID}/providers/Microsoft.Network/networkInterfaces")[1]
    assert not [item for item in nics["value"] if name in str(item)]
    return found


def boot_body(azure: Any, size: str = "", more: Any = None, **disk: Any) -> dict[str, Any]:
    storage = {"osDisk": booted(azure, azure.system_disk(**disk))} | (more or {})
    body: dict[str, Any] = azure.machine_body(azure.isolated(), storage)
    if size:
        body["properties"]["hardwareProfile"]["vmSize"] = size
    return body


def test_a_size_that_does_not_exist_is_named_with_those_that_do(azure: Any, refused: Any):
    code, message, status = refusal(azure, refused, boot_body(azure, "Standard_Z9"))
    assert (code, status) == ("InvalidParameter", 400)
    assert "Standard_D2s_v5" in message


def test_a_size_that_the_region_has_none_left_of_is_refused(azure: Any, refused: Any):
    azure.service.turn(missing_sizes=["Standard_D2s_v5"])
    code, message, status = refusal(azure, refused, boot_body(azure))
    assert (code, status) == ("SkuNotAvailable", 409)
    assert "Capacity Restrictions: Standard_D2s_v5" in message
    wanted = f"location eq '{LOCATION}'"
    skus = {
        item["name"]: item
        for item in (one.as_dict() for one in azure.compute.resource_skus.list(filter=wanted))
    }
    assert skus["Standard_D2s_v5"]["restrictions"][0]["reasonCode"] == "NotAvailableForSubscription"
    assert skus["Standard_D4s_v5"]["restrictions"] == []
    assert list(azure.compute.resource_skus.list(filter="location eq 'westeurope'")) == []


def test_a_quota_that_is_used_up_is_refused_with_its_numbers(azure: Any, refused: Any):
    azure.service.turn(quota_vcpus=3)
    name = azure.make_machine(boot_body(azure))
    code, message, status = refusal(azure, refused, boot_body(azure))
    assert (code, status) == ("OperationNotAllowed", 409)
    assert "Current Limit: 3, Current Usage: 2, Additional Required: 2" in message
    used = {
        item["name"]["value"]: item["currentValue"]
        for item in (one.as_dict() for one in azure.compute.usage.list(LOCATION))
    }
    assert (used["cores"], used["standardDSv5Family"], used["standardBSFamily"]) == (2, 2, 0)
    # Giving the hardware back does not give back the quota.
    azure.compute.virtual_machines.begin_deallocate(RESOURCE_GROUP, name).result()
    assert refusal(azure, refused, boot_body(azure))[0] == "OperationNotAllowed"
    azure.delete_machine(name)


@pytest.mark.parametrize(
    ("size", "disk", "more", "message"),
    [
        ("", {"hyperVGeneration": "V1"}, {}, None),
        ("Standard_D2s_v6", {"hyperVGeneration": "V1"}, {}, "Generation '1'"),
        ("Standard_A2_v2", {}, {}, "Generation '2'"),
        ("Standard_D2s_v6", {}, {}, "disk controller types"),
        ("Standard_D2s_v5", {}, {"diskControllerType": "NVMe"}, "disk controller types"),
        ("Standard_D2ps_v5", {}, {}, "Arm64"),
    ],
)
def test_a_disk_has_to_fit_the_size_that_boots_it(
    azure: Any, refused: Any, size: str, disk: Any, more: Any, message: str | None
):
    body = boot_body(azure, size, more, **disk)
    if message is None:  # D2s_v5 boots both generations
        azure.delete_machine(azure.make_machine(body))
        return
    code, found, status = refusal(azure, refused, body)
    assert code in {"BadRequest", "InvalidParameter"}
    assert status == 400
    assert message in found


def test_a_disk_that_says_nvme_boots_where_there_is_only_nvme(azure: Any):
    capabilities = {"diskControllerTypes": "SCSI, NVMe"}
    name = azure.make_machine(
        boot_body(azure, "Standard_D2s_v6", supportedCapabilities=capabilities)
    )
    shown = azure.compute.virtual_machines.get(RESOURCE_GROUP, name).as_dict()["properties"]
    assert shown["storageProfile"]["diskControllerType"] == "NVMe"
    azure.delete_machine(name)


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"osType": "Linux"}, "PropertyChangeNotAllowed", "osType"),
        ({"osType": None}, "InvalidParameter", "osType"),
        ({"managedDisk": {"id": None}}, "InvalidParameter", "managedDisk.id"),
        ({"managedDisk": {"id": "/a/b/disks/none"}}, "NotFound", "none"),
        ({"createOption": "Empty"}, "InvalidParameter", "createOption"),
        ({"deleteOption": "Burn"}, "InvalidParameter", "deleteOption"),
        ({"diskName": "x"}, "BadRequest", "'diskName' on object of type 'OsDisk'"),
    ],
)
def test_a_disk_to_boot_has_to_be_named_rightly(
    azure: Any, refused: Any, change: Any, code: str, word: str
):
    body = boot_body(azure)
    body["properties"]["storageProfile"]["osDisk"] |= change
    found = refusal(azure, refused, body)
    assert found[0] == code
    assert word in found[1]


def test_a_disk_is_booted_as_it_is(azure: Any, refused: Any):
    body = boot_body(azure)
    body["properties"]["osProfile"] = {"computerName": "x", "adminUsername": "someone"}
    code, message, _ = refusal(azure, refused, body)
    assert (code, "osProfile" in message) == ("InvalidParameter", True)
    body = boot_body(azure)
    body["properties"]["securityProfile"] = {"securityType": "TrustedLaunch"}
    assert refusal(azure, refused, body)[0] == "BadRequest"


def test_a_disk_belongs_to_one_machine(azure: Any, refused: Any):
    body = boot_body(azure)
    name = azure.make_machine(body)
    code, message, status = refusal(azure, refused, copy.deepcopy(body))
    assert (code, status) == ("ConflictingUserInput", 409)
    assert "already owned by VM" in message
    azure.delete_machine(name)


def test_a_disk_that_is_being_uploaded_or_read_is_not_attached(azure: Any, refused: Any):
    waiting, read = azure.make_disk(), azure.system_disk()
    azure.grant(read, "Read")
    for disk in (waiting, read):
        body = azure.machine_body(azure.isolated(), {"osDisk": booted(azure, disk)})
        assert refusal(azure, refused, body)[0] == "ConflictingUserInput"
    azure.revoke(read)


def test_machine_and_disk_are_in_one_zone(azure: Any, refused: Any):
    body = boot_body(azure) | {"zones": ["1"]}
    code, message, _ = refusal(azure, refused, body)
    assert (code, "not in zone '1'" in message) == ("BadRequest", True)


@pytest.mark.parametrize(
    ("change", "code", "word"),
    [
        ({"adminUsername": "admin"}, "InvalidParameter", "adminUsername"),
        ({"adminUsername": None}, "InvalidParameter", "adminUsername"),
        ({"computerName": "under_score"}, "InvalidParameter", "computerName"),
        ({"customData": "not base64!"}, "InvalidParameter", "Base64"),
        ({"customData": "A" * 87384}, "InvalidParameter", "65535"),
        ({"adminPassword": "secret"}, "InvalidParameter", "adminPassword"),
        ({"linuxConfiguration": None}, "InvalidParameter", "SSH"),
        ({"customdata": "QQ=="}, "BadRequest", "customdata"),
    ],
)
def test_a_system_that_azure_would_not_set_up_is_refused(
    azure: Any, refused: Any, change: Any, code: str, word: str
):
    body = engine_body(azure, "#!/usr/bin/python3\n")
    body["properties"]["osProfile"] |= change
    found = refusal(azure, refused, body)
    assert found[0] == code
    assert word in found[1]


@pytest.mark.parametrize(
    "change",
    [
        {"path": "/root/.ssh/authorized_keys"},
        {"keyData": "ssh-dss AAAA"},
        {"keyData": SMALLEST_KEY},
        {"keyData": "ssh-ed25519 AAAAB3NzaC1yc2EAAAADAQAB"},
    ],
)
def test_a_key_that_azure_does_not_take_is_refused(azure: Any, refused: Any, change: Any):
    body = engine_body(azure, "#!/usr/bin/python3\n")
    body["properties"]["osProfile"]["linuxConfiguration"]["ssh"]["publicKeys"][0] |= change
    assert refusal(azure, refused, body)[0] == "InvalidParameter"


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        ({**DEBIAN, "sku": "12"}, "PlatformImageNotFound"),
        ({**DEBIAN, "version": ""}, "InvalidParameter"),
        ({"id": f"{GROUP_ID}/providers/Microsoft.Compute/images/none"}, "NotFound"),
    ],
)
def test_an_image_has_to_exist(azure: Any, refused: Any, reference: Any, code: str):
    body = engine_body(azure, "#!/usr/bin/python3\n", imageReference=reference)
    assert refusal(azure, refused, body)[0] == code


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"networkApiVersion": None}, "InvalidParameter"),
        ({"networkApiVersion": "2019-01-01"}, "InvalidParameter"),
        ({"networkInterfaceConfigurations": []}, "BadRequest"),
    ],
)
def test_a_machine_has_an_interface_of_a_known_version(
    azure: Any, refused: Any, change: Any, code: str
):
    body = boot_body(azure)
    body["properties"]["networkProfile"] |= change
    assert refusal(azure, refused, body)[0] == code


def test_what_an_interface_refers_to_has_to_exist(azure: Any, refused: Any):
    body = boot_body(azure)
    nic = body["properties"]["networkProfile"]["networkInterfaceConfigurations"][0]["properties"]
    address = nic["ipConfigurations"][0]["properties"]
    address["subnet"]["id"] = f"{SUBNET_ID}-none"
    assert refusal(azure, refused, body)[0] == "InvalidResourceReference"
    address["subnet"]["id"] = SUBNET_ID
    nic["networkSecurityGroup"]["id"] += "-none"
    assert refusal(azure, refused, body)[0] == "InvalidResourceReference"


@pytest.mark.parametrize(
    "action",
    [
        "Microsoft.Network/virtualNetworks/subnets/join/action",
        "Microsoft.Network/networkSecurityGroups/join/action",
        "Microsoft.Network/networkInterfaces/join/action",
        "Microsoft.Compute/disks/read",
    ],
)
def test_what_a_machine_is_joined_to_needs_actions_of_its_own(
    azure: Any, refused: Any, action: str
):
    body = boot_body(azure)
    azure.service.turn(denied=[action])
    code, message, status = refusal(azure, refused, body)
    assert (code, status) == ("LinkedAuthorizationFailed", 403)
    assert action in message


@pytest.mark.parametrize(
    ("luns", "code"),
    [((64,), "InvalidParameter"), ((1, 1), "InvalidParameter"), (range(5), "OperationNotAllowed")],
)
def test_a_machine_has_as_many_data_disks_as_its_size_allows(
    azure: Any, refused: Any, luns: Any, code: str
):
    disks = [attach(azure, azure.system_disk(), lun) for lun in luns]
    body = engine_body(azure, "#!/usr/bin/python3\n", disks)
    assert refusal(azure, refused, body)[0] == code


def test_nothing_is_asked_of_a_machine_that_is_not_there(azure: Any, refused: Any):
    machines = azure.compute.virtual_machines
    for call in (machines.begin_start, machines.begin_deallocate, machines.begin_power_off):
        assert refused(call, RESOURCE_GROUP, "never-was")[0] == "ResourceNotFound"
    machines.begin_delete(RESOURCE_GROUP, "never-was").result()


def test_nothing_but_deleting_is_asked_of_a_machine_that_is_being_deleted(azure: Any, refused: Any):
    name = azure.make_machine(boot_body(azure))
    azure.service.turn(state_seconds=0.5)
    machines = azure.compute.virtual_machines
    poller = machines.begin_delete(RESOURCE_GROUP, name)
    code, message, _ = refused(machines.begin_start, RESOURCE_GROUP, name)
    assert (code, "marked for deletion" in message) == ("OperationNotAllowed", True)
    poller.result()
