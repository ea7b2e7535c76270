"""The roles in ``docs/policies`` are enough for a run, and grant nothing that no run uses."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from imageport.cloud import Cloud
from imageport.clouds import engine_setup
from imageport.clouds.azure.permissions import ACTIONS, SUBSCRIPTION
from imageport.clouds.sweep import sweep
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from imageport.model import GIB
from tests.clouds.azure_laboratory import AzureLab
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, in_days, uploaded
from tests.clouds.iam_documents import FOLDER
from tests.clouds.stand_in_engine import build_stand_in
from tests.clouds.stand_in_guest import guest_of

NOT_ON_THE_MAIN_PATH = {
    "Microsoft.Compute/diskAccesses/read": "only with disk_access_id",
    "Microsoft.Compute/diskEncryptionSets/read": "only with disk_encryption_set_id",
    "Microsoft.Compute/galleries/images/versions/read": "only with an engine_image_id of a gallery",
    "Microsoft.Compute/images/read": "only with an engine_image_id of a managed image",
    "Microsoft.Compute/virtualMachines/powerOff/action": "only of a guest that does not end itself",
}
"""Granted actions that a run without trouble does not use, each with its reason."""


def role(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return document


def granted(*names: str) -> set[str]:
    roles = [role(name) for name in names]
    return {action for one in roles for action in (*one["Actions"], *one["DataActions"])}


def folded(actions: Iterable[str]) -> set[str]:
    return {action.lower() for action in actions}


@pytest.fixture
def _guest(azure_lab: AzureLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)
    guest_of(azure_lab.service, tmp_path)("work")


def main_path(cloud: Cloud) -> str:
    """Do what a run does, from preflight to reading for publish; return the last snapshot."""
    assert cloud.check_permissions() == []
    assert cloud.check_place("gold", GIB) == []
    first = uploaded(cloud, BLOCKS)
    second = uploaded(cloud, BLOCKS, token="t-2", parent=first)
    disk = cloud.make_disk(second, GUID)
    job = EngineJob(
        action=Action.COMPOSE,
        disk=EngineDisk(path="", disk_guid=GUID),
        options=EngineOptions(recommended=("work",)),
    )
    assert cloud.run_engine(disk, job, deadline_seconds=120).ok
    outcome = cloud.boot_once(disk, deadline_seconds=60)
    assert outcome.stopped_by_itself, outcome
    prepared = cloud.snapshot(disk, "gold")
    with cloud.open_snapshot(prepared) as opened:
        assert opened.read_at(1024, 6) == b"booted"
    cloud.delete_disk(disk)
    cloud.delete_snapshot(second)
    return prepared


@pytest.mark.usefixtures("_guest")
def test_a_whole_run_needs_exactly_what_the_roles_grant(azure_lab: AzureLab):
    allowed = granted("azure-role", "azure-subscription-role")
    azure_lab.service.forget_calls()
    cloud = azure_lab.azure_cloud("run-1")
    kept = main_path(cloud)
    sweep(cloud, azure_lab.state, SITE, in_days(2))
    called = set(azure_lab.service.calls())
    assert not cloud.exists(kept)
    # Azure compares actions without regard to case, and its own spelling varies.
    assert folded(called) - folded(allowed) == set()
    assert folded(allowed) - folded(called) == folded(NOT_ON_THE_MAIN_PATH)


def test_reading_for_publish_needs_exactly_what_its_role_grants(azure_lab: AzureLab):
    reference = uploaded(azure_lab.azure_cloud("run-1"), BLOCKS)
    azure_lab.service.forget_calls()
    cloud = azure_lab.azure_cloud("run-2")
    assert cloud.exists(reference)
    with cloud.open_snapshot(reference) as opened:
        assert opened.read_at(0, len(BLOCKS[0])) == BLOCKS[0]
        opened.check_unchanged()
    assert folded(azure_lab.service.calls()) == folded(granted("azure-publish-role"))


def test_without_the_role_at_the_subscription_a_run_still_goes_on(azure_lab: AzureLab):
    azure_lab.service.turn(denied=sorted(granted("azure-subscription-role")))
    cloud = azure_lab.azure_cloud("run-1")
    gaps = cloud.check_permissions()
    assert {gap.action for gap in gaps} == granted("azure-subscription-role")
    assert all(gap.optional for gap in gaps)
    assert cloud.check_place("gold", GIB) == []


def test_the_roles_name_what_the_self_test_tries_and_no_more():
    assert granted("azure-role", "azure-subscription-role") == {item.action for item in ACTIONS}
    assert granted("azure-subscription-role") == {
        item.action for item in ACTIONS if item.scope == SUBSCRIPTION
    }
    whole = role("azure-role")
    data = {item.action for item in ACTIONS if item.data}
    assert set(whole["DataActions"]) == data
    assert not set(whole["Actions"]) & data
    assert granted("azure-publish-role") <= granted("azure-role")


@pytest.mark.parametrize("path", sorted(FOLDER.glob("azure-*.json")), ids=lambda path: path.stem)
def test_every_role_can_be_created_as_it_is(path: Path):
    document = json.loads(path.read_text())
    assert document["IsCustom"] is True
    assert document["AssignableScopes"] == ["/subscriptions/SUBSCRIPTION_ID"]
    for listed in ("Actions", "DataActions"):
        assert document[listed] == sorted(set(document[listed]))
        assert not [action for action in document[listed] if "*" in action]
    assert document["NotActions"] == document["NotDataActions"] == []
    assert path.name in (FOLDER.parent / "permissions.md").read_text()
