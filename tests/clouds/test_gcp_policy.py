"""The roles in ``docs/policies`` are enough for a run, and grant nothing that no run uses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from imageport.cloud import Cloud
from imageport.clouds import engine_setup
from imageport.clouds.gcp.job_folder import job_root
from imageport.clouds.gcp.names import site_folder
from imageport.clouds.gcp.permissions import BUCKET, PERMISSIONS, PROJECT, SIGNER, SUBNETS
from imageport.clouds.gcp.place_bucket import _reaches
from imageport.clouds.gcp.segment_collection import archive_folder
from imageport.clouds.sweep import sweep
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from imageport.model import GIB
from tests.clouds.cloud_contract import BLOCKS, GUID, SITE, in_days, uploaded
from tests.clouds.gcp_laboratory import GcpLab
from tests.clouds.iam_documents import FOLDER
from tests.clouds.stand_in_engine import build_stand_in
from tests.clouds.stand_in_guest import guest_of

ROLES = {
    "gcp-role": PROJECT,
    "gcp-bucket-role": BUCKET,
    "gcp-subnet-role": SUBNETS,
    "gcp-signer-role": SIGNER,
}
NOT_ON_THE_MAIN_PATH = {
    "compute.instances.getScreenshot": "only of a guest that does not end itself",
    "iam.serviceAccounts.signBlob": "only where the credentials hold no key",
    "storage.objects.update": "only where a run renews how long its objects live",
}
"""Granted permissions that a run without trouble does not use, each with its reason."""


def role(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((FOLDER / f"{name}.yaml").read_text())
    return document


def granted(*names: str) -> set[str]:
    return {permission for name in names for permission in role(name)["includedPermissions"]}


@pytest.fixture
def _guest(gcp_lab: GcpLab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)
    guest_of(gcp_lab.service, tmp_path)("work")


def main_path(cloud: Cloud) -> str:
    """Do what a run does, from preflight to reading for publish; return the last image."""
    assert cloud.check_permissions() == []
    assert cloud.check_place("gold", GIB) == []
    first = uploaded(cloud, BLOCKS)
    changed = {3: BLOCKS[0]}
    unchanged = {index: data for index, data in BLOCKS.items() if index not in changed}
    second = uploaded(cloud, changed, token="t-2", parent=first, unchanged=unchanged)
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
def test_a_whole_run_needs_exactly_what_the_roles_grant(gcp_lab: GcpLab):
    allowed = granted(*ROLES)
    gcp_lab.service.forget_calls()
    cloud = gcp_lab.gcp_cloud("run-1", keep_stopped_vm=True)
    kept = main_path(cloud)
    sweep(cloud, gcp_lab.state, SITE, in_days(2))
    assert not cloud.exists(kept)
    called = set(gcp_lab.service.calls())
    assert called - allowed == set()
    assert allowed - called == set(NOT_ON_THE_MAIN_PATH)


def test_reading_for_publish_needs_exactly_what_its_roles_grant(gcp_lab: GcpLab):
    reference = uploaded(gcp_lab.cloud("run-1"), BLOCKS)
    gcp_lab.service.forget_calls()
    cloud = gcp_lab.cloud("run-2")
    assert cloud.exists(reference)
    with cloud.open_snapshot(reference) as opened:
        assert opened.read_at(0, len(BLOCKS[0])) == BLOCKS[0]
        opened.check_unchanged()
    allowed = granted("gcp-publish-role", "gcp-publish-bucket-role")
    assert set(gcp_lab.service.calls()) == allowed
    assert allowed <= granted(*ROLES)


def test_without_what_preflight_alone_needs_a_run_still_goes_on(gcp_lab: GcpLab):
    optional = {item.permission for item in PERMISSIONS if item.needed_for == "preflight"}
    gcp_lab.service.turn(denied=sorted(optional))
    cloud = gcp_lab.cloud("run-1")
    gaps = cloud.check_permissions()
    assert {gap.action for gap in gaps} == optional
    assert all(gap.optional for gap in gaps)
    assert cloud.check_place("gold", GIB) == []
    assert cloud.exists(uploaded(cloud, BLOCKS))


@pytest.mark.parametrize(("name", "scope"), ROLES.items())
def test_every_role_has_what_the_self_test_tries_at_its_place_and_no_more(name: str, scope: str):
    assert granted(name) == {item.permission for item in PERMISSIONS if item.scope == scope}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("gcp-*.yaml")), ids=lambda path: path.stem)
def test_every_role_can_be_created_as_it_is(path: Path):
    document = role(path.stem)
    assert set(document) == {"title", "description", "stage", "includedPermissions"}
    listed = document["includedPermissions"]
    assert listed == sorted(set(listed))
    assert not [item for item in listed if "*" in item or item.count(".") != 2]
    # Neither lets anybody give a machine an identity.
    assert "iam.serviceAccounts.actAs" not in listed
    assert path.name in (FOLDER.parent / "permissions.md").read_text()


def test_one_lifecycle_rule_deletes_what_is_temporary_of_all_sites_and_nothing_else(
    gcp_lab: GcpLab,
):
    (rule,) = json.loads((FOLDER / "gcp-lifecycle.json").read_text())["rule"]
    for site in ("frankfurt", "paris"):
        settings = gcp_lab.settings(site=site)
        for folder in (job_root(settings), archive_folder(settings, "imageport-upload-x")):
            assert _reaches(rule, f"{folder}x")
        for name in ("seg", "out", "index", "uploads", "collecting"):
            assert not _reaches(rule, f"{site_folder(settings)}{name}/x")
