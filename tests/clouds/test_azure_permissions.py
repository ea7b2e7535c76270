"""The self-test names every action that is not granted, where it is needed, and creates nothing."""

from __future__ import annotations

import inspect
import re
import time
from pathlib import Path
from typing import Any

import pytest
from azure.core.credentials import AccessToken

from imageport.clouds.azure import permissions
from imageport.clouds.azure.clients import AzureClients
from imageport.clouds.azure.permissions import (
    ACTIONS,
    CONTAINER,
    NAMED,
    SELF_TEST,
    SUBSCRIPTION,
    check_permissions,
    is_granted,
    needed_actions,
)
from imageport.errors import CloudRefused
from imageport.sandbox.azure.account import SUBNET_ID
from tests.clouds.azure_laboratory import AzureLab
from tests.clouds.cloud_contract import SITE

SOURCES = Path(inspect.getfile(permissions)).parent
LITERAL = re.compile(r"Microsoft\.[A-Za-z]+/[A-Za-z/]+/(?:read|write|delete|action)\b")
ALWAYS = sorted({item.action for item in ACTIONS if item.scope != NAMED} - {SELF_TEST})


def test_nothing_is_missing_and_nothing_is_made_when_all_is_granted(azure_lab: AzureLab):
    assert check_permissions(azure_lab.account("run-1")) == []
    cloud = azure_lab.cloud("run-1")
    assert cloud.list_ours(SITE) == []
    container = azure_lab.clients.blob_service.get_container_client("jobs")
    assert list(container.list_blobs()) == []
    assert azure_lab.state.ledger.open_entries() == []


def test_every_denied_action_is_named_with_what_needs_it(azure_lab: AzureLab):
    azure_lab.service.turn(denied=ALWAYS)
    gaps = {gap.action: gap for gap in check_permissions(azure_lab.account("run-1"))}
    assert sorted(gaps) == ALWAYS
    for needed in ACTIONS:
        if needed.action in gaps and needed.scope != NAMED:
            assert gaps[needed.action].needed_for == needed.needed_for
    assert {gap.found for gap in gaps.values()} == {"denied"}


@pytest.mark.parametrize(
    "action",
    [
        "Microsoft.Network/virtualNetworks/subnets/join/action",
        "Microsoft.Storage/storageAccounts/blobServices/containers/blobs/write",
        "Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action",
        "Microsoft.Compute/skus/read",
    ],
)
def test_an_action_is_looked_for_where_it_is_needed(azure_lab: AzureLab, action: str):
    azure_lab.service.turn(denied=[action])
    (gap,) = check_permissions(azure_lab.account("run-1"))
    assert gap.action == action


def test_who_may_not_even_ask_what_is_granted_gets_that_one_gap(azure_lab: AzureLab):
    azure_lab.service.turn(denied=[SELF_TEST])
    (gap,) = check_permissions(azure_lab.account("run-1"))
    assert gap.action == SELF_TEST
    settings = azure_lab.settings()
    for scope in (settings.group_id, f"/subscriptions/{settings.subscription_id}", SUBNET_ID):
        assert scope in gap.found


def test_a_subnet_that_is_not_there_is_no_missing_permission(azure_lab: AzureLab):
    account = azure_lab.account("run-1", subnet_id=f"{SUBNET_ID}-no")
    assert check_permissions(account) == []


@pytest.mark.parametrize(
    ("image", "action"),
    [
        ("images/engine", "Microsoft.Compute/images/read"),
        (
            "galleries/imageport/images/engine/versions/1.0.0",
            "Microsoft.Compute/galleries/images/versions/read",
        ),
    ],
)
def test_an_engine_image_is_read_where_it_lies(azure_lab: AzureLab, image: str, action: str):
    group = azure_lab.settings().group_id
    settings = azure_lab.settings(engine_image_id=f"{group}/providers/Microsoft.Compute/{image}")
    found = [item.action for item in needed_actions(settings) if "images/" in item.action]
    assert found == [action]


def test_every_action_that_the_sources_name_is_in_the_table():
    asked: set[str] = set()
    for path in SOURCES.glob("*.py"):
        if path.name != "permissions.py":
            asked |= set(LITERAL.findall(path.read_text()))
    assert len(asked) > 12
    assert asked - {item.action for item in ACTIONS} == set()


def test_every_action_is_in_the_table_once_for_each_place_and_says_what_for():
    keys = [(item.action, item.scope) for item in ACTIONS]
    assert len(keys) == len(set(keys))
    for item in ACTIONS:
        assert item.needed_for
        assert item.data is ("/blobs/" in item.action)
        assert bool(item.settings) is (item.scope == NAMED)


def test_what_the_settings_do_not_use_needs_no_permission(azure_lab: AzureLab):
    group = f"{azure_lab.settings().group_id}/providers/Microsoft.Network/networkSecurityGroups/x"
    settings = azure_lab.settings(
        engine_network_security_group_id=group,
        isolated_network_security_group_id=group,
        job_container_url="",
    )
    needed = needed_actions(settings)
    assert not [item for item in needed if item.scope == CONTAINER]
    groups = [item for item in needed if "networkSecurityGroups" in item.action]
    assert {(item.action.split("/", 2)[2], item.scope) for item in groups} == {
        ("read", "resource group"),
        ("join/action", NAMED),
    }
    assert not [item for item in needed if "diskEncryptionSets" in item.action]
    with_key = azure_lab.settings(
        disk_encryption_set_id=f"{settings.group_id}/providers/Microsoft.Compute/diskEncryptionSets/k"
    )
    assert [item for item in needed_actions(with_key) if "diskEncryptionSets" in item.action]
    assert [item for item in needed if item.scope == SUBSCRIPTION]


READER: dict[str, Any] = {"actions": ["*/read"], "notActions": []}
DISKS: dict[str, Any] = {
    "actions": ["microsoft.compute/disks/*"],
    "notActions": ["Microsoft.Compute/disks/delete"],
}


@pytest.mark.parametrize(
    ("roles", "action", "granted"),
    [
        ([READER], "Microsoft.Compute/disks/read", True),
        ([READER], "Microsoft.Compute/disks/write", False),
        ([READER], "Microsoft.Compute/disks/readers/action", False),
        ([DISKS], "Microsoft.Compute/disks/beginGetAccess/action", True),
        ([DISKS], "Microsoft.Compute/disks/delete", False),
        ([DISKS], "Microsoft.Compute/snapshots/write", False),
        # A dot is a dot.
        ([DISKS], "MicrosoftXcompute/disks/write", False),
        # What one role excludes another may grant.
        ([DISKS, {"actions": ["*"], "notActions": []}], "Microsoft.Compute/disks/delete", True),
        ([{"actions": None}], "Microsoft.Compute/disks/read", False),
        ([], "Microsoft.Compute/disks/read", False),
    ],
)
def test_wildcards_and_exclusions_are_read_as_azure_reads_them(
    roles: list[dict[str, Any]], action: str, granted: bool
):
    assert is_granted(roles, action) is granted


class Expired:
    """Signs in with a token that Azure does not know any more."""

    def get_token(self, *_scopes: str, **_options: Any) -> AccessToken:
        return AccessToken("expired", int(time.time()) + 3600)


def test_a_credential_that_is_refused_is_no_list_of_missing_actions(azure_lab: AzureLab):
    account = azure_lab.account("run-1")
    expired = AzureClients(azure_lab.settings(), Expired())
    account.clients = expired
    try:
        with pytest.raises(CloudRefused) as caught:
            check_permissions(account)
    finally:
        expired.close()
    assert "credentials of the worker" in caught.value.hint
