"""The self-test names every permission that is not granted, where it is needed; creates nothing."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from imageport.clouds.gcp import permissions
from imageport.clouds.gcp.permissions import (
    BUCKET,
    ENGINE_IMAGE,
    NETWORK,
    PERMISSIONS,
    PREFLIGHT,
    PROJECT,
    SELF_TEST,
    SIGNER,
    SUBNETS,
    check_permissions,
    needed_permissions,
)
from imageport.doctor.grants import gcp_grant
from imageport.errors import CloudRefused
from imageport.sandbox.gcp.account import BOOT_SUBNET, SERVICE_ACCOUNT, SUBNET
from imageport.sandbox.gcp.account import BUCKET as NAME
from imageport.sandbox.gcp.account import PROJECT as PROJECT_ID
from tests.clouds.cloud_contract import SITE
from tests.clouds.gcp_laboratory import GcpLab

SOURCES = Path(inspect.getfile(permissions)).parent
LITERAL = re.compile(r'"((?:compute|storage|iam)\.[a-zA-Z]+\.[a-zA-Z]+)"')
NO_PERMISSIONS = {
    "compute.images.insert", "compute.instances.insert", "compute.disks.insert",
    "compute.firewalls.insert", "storage.objects.compose", "iam.serviceAccounts.get",
}  # fmt: skip
"""Methods, which errors name until Google says which permission is missing."""
ENDINGS = {
    "compute.instances.terminateOnHostMaintenance", "compute.instances.scheduledStop",
    "compute.instances.preempted", "compute.instances.hostError",
}  # fmt: skip
"""Kinds of operations by which Google itself ends machines."""
OF_NO_RUN = {
    "compute.images.getFromFamily": "`compute.images.useReadOnly` of public images is everybody's",
    "compute.regionOperations.get": "no run makes anything that belongs to a region",
}


def test_nothing_is_missing_and_nothing_is_made_when_all_is_granted(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1", boot_subnet=BOOT_SUBNET, keep_stopped_vm=True)
    assert check_permissions(account) == []
    assert gcp_lab.cloud("run-1").list_ours(SITE) == []
    assert gcp_lab.everything() == []
    assert gcp_lab.state.ledger.open_entries() == []


def test_every_denied_permission_is_named_with_what_needs_it(gcp_lab: GcpLab):
    needed = [item for item in PERMISSIONS if item.scope in {PROJECT, BUCKET, SUBNETS}]
    gcp_lab.service.turn(denied=sorted({item.permission for item in needed}))
    account = gcp_lab.account("run-1", keep_stopped_vm=True)
    gaps = {gap.action: gap for gap in check_permissions(account)}
    assert sorted(gaps) == sorted({item.permission for item in needed})
    for item in needed:
        gap = gaps[item.permission]
        assert gap.needed_for == item.needed_for
        assert gap.optional is (item.needed_for == PREFLIGHT)
        assert gap.found.startswith("denied")


@pytest.mark.parametrize(
    ("permission", "found"),
    [
        ("storage.objects.create", f"denied at bucket '{NAME}'"),
        ("compute.subnetworks.use", f"denied at subnets '{SUBNET}'"),
        ("compute.images.create", "denied"),
    ],
)
def test_a_permission_is_looked_for_where_it_is_needed(
    gcp_lab: GcpLab, permission: str, found: str
):
    gcp_lab.service.turn(denied=[permission])
    (gap,) = check_permissions(gcp_lab.account("run-1"))
    assert (gap.action, gap.found) == (permission, found)


def test_both_subnets_are_asked_when_there_are_two(gcp_lab: GcpLab):
    gcp_lab.service.turn(denied=["compute.subnetworks.use"])
    gaps = check_permissions(gcp_lab.account("run-1", boot_subnet=BOOT_SUBNET))
    assert [gap.found.split("'")[1] for gap in gaps] == [BOOT_SUBNET, SUBNET]


def test_a_bucket_or_subnet_that_is_not_there_is_no_missing_permission(gcp_lab: GcpLab):
    account = gcp_lab.account("run-1", subnet=f"{SUBNET}-no", bucket="imageport-nowhere")
    assert check_permissions(account) == []


def test_the_rules_of_a_shared_network_are_asked_for_in_its_project(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    asked: list[str] = []
    ask = gcp_lab.clients.ask

    def recorded(service: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        if "/host-1:" not in path:
            return ask(service, method, path, **options)
        asked.extend(options["body"]["permissions"])
        return {}

    monkeypatch.setattr(gcp_lab.clients, "ask", recorded)
    shared = SUBNET.replace(f"projects/{PROJECT_ID}/", "projects/host-1/")
    assert check_permissions(gcp_lab.account("run-1", boot_subnet=shared)) == []
    assert asked == []
    account = gcp_lab.account("run-1", boot_subnet=shared, isolated_network_tag="shut")
    (gap,) = check_permissions(account)
    assert asked == [gap.action] == ["compute.firewalls.list"]
    assert gap.found == "denied at network's project 'host-1'"
    assert gcp_grant(account.settings, gap.action).endswith("project 'host-1'")


def test_a_stopped_machine_asks_for_more(gcp_lab: GcpLab):
    more = {"compute.instances.attachDisk", "compute.instances.detachDisk"}
    usual = {item.permission for item in needed_permissions(gcp_lab.settings())}
    kept = {item.permission for item in needed_permissions(gcp_lab.settings(keep_stopped_vm=True))}
    assert not more & usual
    assert more <= kept


def test_the_right_to_sign_is_asked_only_where_google_keeps_the_key(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    asked: list[tuple[str, str]] = []
    ask = gcp_lab.clients.ask

    def recorded(service: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        asked.append((service, path))
        return {} if service == "iam" else ask(service, method, path, **options)

    monkeypatch.setattr(gcp_lab.clients, "ask", recorded)
    assert check_permissions(gcp_lab.account("run-1")) == []
    assert "iam" not in {service for service, _ in asked}
    other = "signer@images-1.iam.gserviceaccount.com"
    (gap,) = check_permissions(gcp_lab.account("run-1", signing_account=other))
    assert gap.action == "iam.serviceAccounts.signBlob"
    assert gap.found == f"denied at {SIGNER} '{other}'"
    assert ("iam", f"/v1/projects/-/serviceAccounts/{other}:testIamPermissions") in asked
    assert check_permissions(gcp_lab.account("run-1", signing_account=SERVICE_ACCOUNT)) == []


def test_a_project_that_cannot_be_asked_is_one_gap_that_a_run_works_with(
    gcp_lab: GcpLab, monkeypatch: pytest.MonkeyPatch
):
    ask = gcp_lab.clients.ask

    def off(service: str, method: str, path: str, **options: Any) -> dict[str, Any]:
        if service == "cloudresourcemanager":
            raise CloudRefused("Cannot ask: it is off.", gcp_code="SERVICE_DISABLED", status=403)
        return ask(service, method, path, **options)

    monkeypatch.setattr(gcp_lab.clients, "ask", off)
    (gap,) = check_permissions(gcp_lab.account("run-1"))
    assert (gap.action, gap.found, gap.optional) == (SELF_TEST, "not enabled", True)


def test_every_permission_that_the_sources_name_is_in_the_table():
    named: set[str] = set()
    for path in SOURCES.glob("*.py"):
        if path.name != "permissions.py":
            named |= set(LITERAL.findall(path.read_text()))
    assert len(named) > 12
    known = {item.permission for item in PERMISSIONS} | NO_PERMISSIONS | ENDINGS
    assert named - known == set(OF_NO_RUN)


def test_every_permission_is_in_the_table_once_for_each_place_and_says_what_for():
    places = [(item.permission, item.scope) for item in PERMISSIONS]
    assert len(places) == len(set(places))
    assert all(item.needed_for for item in PERMISSIONS)
    assert {item.scope for item in PERMISSIONS} == {
        PROJECT,
        BUCKET,
        SUBNETS,
        NETWORK,
        ENGINE_IMAGE,
        SIGNER,
    }
