"""Preflight looks at the group, the network and the sizes, and says everything at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imageport.clouds.azure.arm_http import NETWORK_API, ArmHttp
from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.network import isolated_group, isolated_rules
from imageport.clouds.azure.place import check_place
from imageport.errors import InputError
from imageport.model import GIB
from imageport.sandbox.azure.account import (
    BOOT_SUBNET_ID,
    DISK_ACCESS_ID,
    DISK_ENCRYPTION_SET_ID,
    ENGINE_IMAGE_ID,
    LOCATION,
)
from tests.clouds.azure_laboratory import AzureLab

SIZE = 64 * GIB
PREFLIGHT = [
    "Microsoft.Resources/subscriptions/resourceGroups/read", "Microsoft.Compute/skus/read",
    "Microsoft.Network/virtualNetworks/subnets/read", "Microsoft.Network/virtualNetworks/read",
    "Microsoft.Compute/locations/usages/read", "Microsoft.Network/networkSecurityGroups/read",
    "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/read",
]  # fmt: skip
OPEN = {"priority": 100, "sourceAddressPrefix": "*", "sourcePortRange": "*", "protocol": "*",
        "destinationAddressPrefix": "*", "destinationPortRange": "*"}  # fmt: skip


def problems(lab: AzureLab, image: str = "gold", size: int = SIZE, **changes: Any) -> list[str]:
    account = lab.account("run-1", **changes)
    # Clients of their own: the container is one of their settings.
    account.clients = AzureClients(account.settings, lab.connections.credential)
    try:
        return [str(problem) for problem in check_place(account, image, size)]
    finally:
        account.clients.close()


def group_id(lab: AzureLab, name: str) -> str:
    kind = "Microsoft.Network/networkSecurityGroups"
    return f"{lab.settings().group_id}/providers/{kind}/{name}"


@pytest.fixture
def operators_group(azure_lab: AzureLab) -> Iterator[Any]:
    """Make a group of the operator's from its rules."""
    made: list[str] = []

    def make(*rules: dict[str, Any]) -> str:
        path = group_id(azure_lab, f"operators-{len(made)}")
        listed = [
            {"name": f"rule-{number}", "properties": OPEN | rule}
            for number, rule in enumerate(rules)
        ]
        body = {"location": LOCATION, "properties": {"securityRules": listed}}
        azure_lab.clients.arm.put(path, body, NETWORK_API, "x/write")
        made.append(path)
        return path

    yield make
    for path in made:
        azure_lab.clients.arm.delete(path, NETWORK_API, "x/delete")


def test_a_place_that_fits_has_no_problem_and_is_only_read(azure_lab: AzureLab):
    account = azure_lab.account("run-0")
    made = isolated_group(account)
    made.make(isolated_rules(account.settings))
    try:
        azure_lab.service.forget_calls()
        assert problems(
            azure_lab,
            boot_subnet_id=BOOT_SUBNET_ID,
            zone="2",
            isolated_network_security_group_id=made.id,
            engine_network_security_group_id=made.id,
            disk_access_id=DISK_ACCESS_ID,
            network_access_policy="AllowPrivate",
            disk_encryption_set_id=DISK_ENCRYPTION_SET_ID,
            engine_image_id=ENGINE_IMAGE_ID,
        ) == []  # fmt: skip
        assert all(action.endswith("/read") for action in azure_lab.service.calls())
    finally:
        made.remove()


def test_everything_wrong_is_said_at_once(azure_lab: AzureLab):
    nowhere = azure_lab.settings().group_id.replace("imageport-lab", "other")
    found = problems(
        azure_lab,
        "g" * 300,
        4096 * GIB,
        site="frankfurt/main",
        boot_subnet_id=f"{BOOT_SUBNET_ID}-no",
        upload_disk_sku="UltraSSD_LRS",
        engine_network_security_group_id=group_id(azure_lab, "nowhere"),
        engine_vm_size="Standard_No_v9",
        job_container_url=f"{azure_lab.settings().job_container_url}-no",
        disk_encryption_set_id=f"{nowhere}/providers/Microsoft.Compute/diskEncryptionSets/no",
        engine_image_id=f"{nowhere}/providers/Microsoft.Compute/images/no",
    )
    joined = "\n".join(found)
    for words in (
        "300 characters",
        "'frankfurt/main'",
        "4096 GiB, needed at most 4095 GiB",
        "boot_subnet_id: found no",
        "'UltraSSD_LRS'",
        "engine_network_security_group_id: found no",
        f"'Standard_No_v9', which '{LOCATION}' does not offer",
        "job_container_url: found no",
        "disk_encryption_set_id: found no",
        "engine_image_id: found no",
    ):
        assert words in joined, joined
    assert len(found) == 10


@pytest.mark.parametrize("site", ["x" * 257, "a.", ".a", "a b", "ä", "a/b"])
def test_a_site_that_cannot_be_a_tag_and_a_part_of_a_blob_name_is_a_problem(
    azure_lab: AzureLab, site: str
):
    (line,) = problems(azure_lab, site=site)
    assert line.startswith("Bad site: found")


def test_the_largest_image_that_boots_is_no_problem(azure_lab: AzureLab):
    assert problems(azure_lab, size=4095 * GIB) == []
    (line,) = problems(azure_lab, size=4095 * GIB + 1)
    assert "4096 GiB" in line


def test_a_size_that_the_subscription_may_not_use_is_named_with_what_to_do(azure_lab: AzureLab):
    azure_lab.service.turn(missing_sizes=["Standard_D2s_v5"])
    account = azure_lab.account("run-1", engine_vm_size="Standard_D2s_v4")
    sizes = {problem.subject: problem for problem in check_place(account, "gold", SIZE)}
    assert "NotAvailableForSubscription" in sizes["boot_vm_size"].found
    assert "ask Azure for access" in sizes["boot_vm_size"].hint


def test_a_size_that_cannot_boot_the_image_is_a_problem(azure_lab: AzureLab):
    unfit = {
        "Standard_D2ps_v5": "with Arm64, needed x64 processors",
        "Standard_A2_v2": "without generation 2",
    }
    for size, words in unfit.items():
        found = problems(azure_lab, boot_vm_size=size)
        assert any(words in line for line in found), found


def test_a_size_with_nvme_alone_is_no_problem(azure_lab: AzureLab):
    assert problems(azure_lab, boot_vm_size="Standard_D2s_v6") == []


def test_a_quota_that_is_used_up_is_named_before_the_machine_fails(azure_lab: AzureLab):
    azure_lab.service.turn(quota_vcpus=2)
    assert problems(azure_lab) == []
    azure_lab.service.turn(quota_vcpus=1)
    found = problems(azure_lab)
    assert len(found) == 2  # the family's and the region's, each once for both machines
    assert all("found 1, of which 0 are in use, needed 2 more" in line for line in found)


def test_an_isolated_group_of_the_operators_has_to_isolate(
    azure_lab: AzureLab, operators_group: Any
):
    lets_in = {"direction": "Inbound", "access": "Allow", "priority": 200}
    shuts_in = {"direction": "Inbound", "access": "Deny", "priority": 300}
    shuts_out = {"direction": "Outbound", "access": "Deny", "priority": 4000}
    tags = [
        {
            "direction": "Outbound", "access": "Deny", "priority": 100 + number,
            "destinationAddressPrefix": tag,
        }
        for number, tag in enumerate(("AzurePlatformDNS", "AzurePlatformIMDS", "AzurePlatformLKM"))
    ]  # fmt: skip
    named = {"direction": "Outbound", "access": "Allow", "priority": 150,
             "destinationAddressPrefix": "10.0.0.5/32"}  # fmt: skip
    cases: list[tuple[list[dict[str, Any]], list[str]]] = [
        ([shuts_in, shuts_out, *tags], []),
        ([shuts_in, shuts_out, named, *tags], []),
        ([lets_in, shuts_in, shuts_out, *tags], ["1 rules that let others in"]),
        ([shuts_in, *tags], ["denies everything else outbound"]),
        ([shuts_out, *tags], ["denies everything else inbound"]),
        ([shuts_in | {"protocol": "Tcp"}, shuts_out, *tags], ["else inbound"]),
        ([shuts_in, shuts_out, *tags[:2]], ["denies AzurePlatformLKM"]),
        ([], ["else inbound", "else outbound", "AzurePlatformDNS, AzurePlatformIMDS"]),
    ]
    for rules, expected in cases:
        path = operators_group(*rules)
        found = problems(azure_lab, isolated_network_security_group_id=path)
        assert len(found) == len(expected), found
        for line, words in zip(found, expected, strict=True):
            assert words in line


def test_what_lies_in_another_location_is_a_problem(azure_lab: AzureLab):
    found = problems(azure_lab, location="westeurope", boot_subnet_id=BOOT_SUBNET_ID)
    joined = "\n".join(found)
    assert f"Bad subnet_id: found one in '{LOCATION}', needed one in 'westeurope'." in joined
    assert f"Bad boot_subnet_id: found one in '{LOCATION}'" in joined
    assert "location" in joined


@pytest.mark.parametrize(
    ("regions", "count"), [(["West Europe"], 1), (["Germany West Central"], 0)]
)
def test_an_engine_image_of_a_gallery_has_to_be_replicated_here(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch, regions: list[str], count: int
):
    """The emulator has no galleries, so their answer is told to the client."""
    group = azure_lab.settings().group_id
    version = f"{group}/providers/Microsoft.Compute/galleries/g/images/engine/versions/1.0.0"
    get = ArmHttp.get

    def with_gallery(self: ArmHttp, path: str, *request: str) -> Any:
        if path != version:
            return get(self, path, *request)
        places = [{"name": name} for name in regions]
        return {"location": "x", "properties": {"publishingProfile": {"targetRegions": places}}}

    monkeypatch.setattr(ArmHttp, "get", with_gallery)
    found = problems(azure_lab, engine_image_id=version)
    assert len(found) == count
    assert all("one in westeurope, needed one replicated to" in line for line in found)


def test_a_container_that_nobody_answers_for_hides_no_other_problem(
    azure_lab: AzureLab, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("azure.storage.blob.ExponentialRetry.get_backoff_time", lambda *_: 0.0)
    found = problems(azure_lab, "g" * 300, job_container_url="http://127.0.0.1:9/nobody/jobs")
    assert [line.split(":")[0].split()[1] for line in found] == ["name", "job_container_url"]
    assert "no answer from 'http://127.0.0.1:9/nobody/jobs'" in found[1]


def test_what_the_credential_may_not_look_at_is_no_problem_of_the_place(azure_lab: AzureLab):
    azure_lab.service.turn(denied=PREFLIGHT)
    wrong = {"boot_vm_size": "Standard_No_v9", "boot_subnet_id": f"{BOOT_SUBNET_ID}-no"}
    assert problems(azure_lab, **wrong) == []
    azure_lab.service.turn(denied=["Microsoft.Compute/skus/read"])
    assert len(problems(azure_lab, **wrong)) == 1


def test_settings_without_subnet_or_container_are_refused_together(azure_lab: AzureLab):
    with pytest.raises(InputError, match="subnet_id, job_container_url"):
        problems(azure_lab, subnet_id="", job_container_url="")
