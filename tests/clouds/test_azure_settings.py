"""Azure settings refuse contradictions at once, and names follow from what is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core import AzureClouds
from azure.identity import AzureAuthorityHosts
from azure.mgmt.core.tools import get_arm_endpoints

from imageport.clouds.azure.names import (
    DISKS,
    NAME_CHARACTERS,
    SNAPSHOTS,
    parse_id,
    resource_id,
    resource_name,
    same_id,
    snapshot_of_upload,
)
from imageport.clouds.azure.settings import ENVIRONMENTS, AzureSettings
from imageport.clouds.intents import Intent
from imageport.clouds.tags import TAG_ROLE
from imageport.errors import InputError, ResourceGone
from imageport.state.records import LedgerEntry

SUBSCRIPTION = "0000AAAA-1111-2222-3333-444444444444"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/Images"
NETWORK = f"{GROUP}/providers/Microsoft.Network"


def settings(**changes: Any) -> AzureSettings:
    known = {
        "subscription_id": SUBSCRIPTION,
        "resource_group": "Images",
        "location": "germanywestcentral",
    }
    return AzureSettings(**(known | changes))


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"subscription_id": ""}, "subscription_id is missing"),
        ({"resource_group": ""}, "resource_group is missing"),
        ({"subscription_id": "mine"}, "subscription_id 'mine' is no GUID"),
        ({"location": "Germany West Central"}, "is no short name"),
        ({"environment": "germany"}, "environment 'germany' is none of"),
        ({"zone": "4"}, "zone '4' is none of 1, 2, 3"),
        ({"network_access_policy": "DenyAll"}, "network_access_policy 'DenyAll' is none of"),
        ({"network_access_policy": "AllowPrivate"}, "AllowPrivate needs disk_access_id"),
        (
            {"disk_access_id": f"{GROUP}/providers/Microsoft.Compute/diskAccesses/a"},
            "disk_access_id needs network_access_policy AllowPrivate",
        ),
        ({"subnet_id": "subnet-1"}, "subnet_id 'subnet-1' is no id of"),
        (
            {"subnet_id": f"{NETWORK}/virtualNetworks/lab"},
            "is no id of Microsoft.Network/virtualNetworks/subnets",
        ),
        (
            {"disk_encryption_set_id": f"{NETWORK}/virtualNetworks/lab"},
            "is no id of Microsoft.Compute/diskEncryptionSets",
        ),
        ({"engine_image_id": "debian-12"}, "engine_image_id 'debian-12' is no id of"),
        (
            {"engine_image_id": f"{NETWORK}/virtualNetworks/lab"},
            "Microsoft.Compute/galleries/images/versions",
        ),
        ({"endpoint_url": "http://10.0.0.5"}, "is neither https nor on this machine"),
        ({"job_container_url": "http://jobs.example/x"}, "is neither https nor on this machine"),
        (
            {"job_container_url": "https://jobs.blob.core.usgovcloudapi.net/x"},
            "job_container_url lies in environment 'usgovernment'",
        ),
        (
            {
                "environment": "china",
                "job_container_url": "https://jobs.blob.core.windows.net/x",
            },
            "job_container_url lies in environment 'public'",
        ),
        ({"job_container_url": "https://jobs.example"}, "names no container, or more than one"),
        ({"job_container_url": "https://jobs.example/a/b"}, "no container, or more than one"),
        ({"boot_egress_cidrs": ("10.0.0.0/33",)}, "boot_egress_cidrs '10.0.0.0/33' is no network"),
    ],
)
def test_a_contradiction_is_refused_by_name(changes: dict[str, Any], problem: str):
    with pytest.raises(InputError) as caught:
        settings(**changes)
    assert any(problem in found for found in caught.value.fields["problems"])


def test_everything_wrong_is_said_at_once():
    with pytest.raises(InputError) as caught:
        settings(location="", zone="9", subnet_id="x", endpoint_url="http://far.example")
    assert len(caught.value.fields["problems"]) == 4


def test_a_signature_or_password_in_an_address_is_refused_and_not_repeated():
    for url in ("https://a.blob.core.windows.net/jobs?sig=5ecre7", "https://u:5ecre7@a.example/j"):
        with pytest.raises(InputError) as caught:
            settings(job_container_url=url)
        assert "5ecre7" not in f"{caught.value!s}{caught.value!r}{caught.value.as_dict()}"


def test_a_proxy_is_never_shown():
    assert "5ecre7" not in repr(settings(proxy="http://worker:5ecre7@proxy:3128"))


def test_what_a_step_needs_is_asked_for_by_name():
    with pytest.raises(InputError, match="found no job_container_url, subnet_id, needed"):
        settings().require("job_container_url", "location", "subnet_id")


def test_plain_http_is_for_a_laboratory_on_this_machine_alone():
    assert settings(endpoint_url="http://127.0.0.1:8080/").resource_manager == (
        "http://127.0.0.1:8080"
    )
    assert settings(endpoint_url="https://arm.internal").resource_manager == "https://arm.internal"


@pytest.mark.parametrize("environment", ENVIRONMENTS)
def test_each_azure_cloud_has_its_own_addresses(environment: str):
    cloud = settings(environment=environment).cloud
    assert settings(environment=environment).resource_manager == cloud.resource_manager
    assert cloud.management_scope.endswith("/.default")
    assert cloud.resource_manager.startswith("https://")


def test_the_azure_clouds_agree_with_microsofts_own_table():
    table = {
        "public": (AzureClouds.AZURE_PUBLIC_CLOUD, AzureAuthorityHosts.AZURE_PUBLIC_CLOUD),
        "usgovernment": (AzureClouds.AZURE_US_GOVERNMENT, AzureAuthorityHosts.AZURE_GOVERNMENT),
        "china": (AzureClouds.AZURE_CHINA_CLOUD, AzureAuthorityHosts.AZURE_CHINA),
    }
    for name, (cloud, authority) in table.items():
        theirs = get_arm_endpoints(cloud)
        assert ENVIRONMENTS[name].resource_manager == theirs["resource_manager"].rstrip("/")
        assert [ENVIRONMENTS[name].management_scope] == theirs["credential_scopes"]
        assert ENVIRONMENTS[name].authority_host == authority


def test_the_scope_names_location_subscription_and_group_in_one_spelling():
    assert settings().scope == settings(resource_group="IMAGES").scope
    assert settings().scope == f"azure/germanywestcentral/{SUBSCRIPTION.lower()}/images"
    assert settings().group_id == settings(resource_group="iMAGES").group_id


def intent(entry_id: str = "entry-1", role: str = "upload") -> Intent:
    entry = LedgerEntry(
        id=entry_id, kind="disk", token="azure/x/1234", run="r", site="s",
        created="2026-01-01T00:00:00+00:00", expires="2026-01-01T06:00:00+00:00",
    )  # fmt: skip
    return Intent(entry, {TAG_ROLE: role})


def test_a_name_is_the_same_after_a_crash_and_new_after_a_deletion():
    assert resource_name(intent()) == resource_name(intent())
    assert resource_name(intent()) != resource_name(intent("entry-2"))
    assert resource_name(intent()).startswith("imageport-upload-")


def test_a_name_fits_what_azure_allows():
    for role in ("upload", "uploaded", "prepared", "engine", "x" * 100):
        assert len(resource_name(intent(role=role))) <= NAME_CHARACTERS
        parse_id(resource_id(settings(), DISKS, resource_name(intent(role=role))))


def test_an_upload_disks_id_alone_tells_which_snapshot_it_becomes():
    disk = resource_id(settings(), DISKS, resource_name(intent()))
    snapshot = parse_id(snapshot_of_upload(disk), SNAPSHOTS)
    assert snapshot.name.startswith("imageport-uploaded-")
    assert snapshot.name.rsplit("-")[-1] == disk.rsplit("-")[-1]
    assert snapshot_of_upload(disk) == snapshot_of_upload(disk)
    other = resource_id(settings(), DISKS, resource_name(intent("entry-2")))
    assert snapshot_of_upload(other) != snapshot_of_upload(disk)


def test_ids_compare_without_regard_to_case():
    disk = resource_id(settings(), DISKS, "imageport-work-1")
    assert same_id(disk, disk.upper())
    assert parse_id(disk.replace("resourceGroups", "RESOURCEGROUPS"), DISKS).type == DISKS


@pytest.mark.parametrize(
    "text", ["", "snap-0123456789abcdef0", GROUP, f"{GROUP}/providers/Microsoft.Compute/disks/a/b"]
)
def test_what_is_no_id_names_nothing_that_exists(text: str):
    with pytest.raises(ResourceGone):
        parse_id(text, DISKS)


def test_an_id_of_another_type_is_refused():
    with pytest.raises(ResourceGone, match=r"needed one of Microsoft\.Compute/snapshots"):
        parse_id(resource_id(settings(), DISKS, "a"), SNAPSHOTS)
