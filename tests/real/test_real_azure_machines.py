"""Machines, network and identity of Azure. About 0.10 USD together."""

from __future__ import annotations

from pathlib import Path

import pytest

from imageport.clouds import engine_setup
from imageport.clouds.azure.arm_http import AUTHORIZATION_API, NETWORK_API
from imageport.clouds.azure.network import delete_group, isolated_group
from imageport.clouds.azure.permissions import SELF_TEST
from imageport.clouds.azure.virtual_machines import describe_machine
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions
from imageport.formats.opening import open_disk
from imageport.model import GIB
from imageport.progress import Event
from imageport.sandbox.sample.build import build_sample
from imageport.storage.local import LocalFolder
from imageport.transfer.pipeline import TransferRequest, transfer
from tests.clouds.cloud_contract import BLOCKS, uploaded
from tests.clouds.stand_in_engine import build_stand_in
from tests.real.conftest import Observed
from tests.real.probes import probes
from tests.real.real_azure import RealAzure

DENIED_TAGS = {"AzurePlatformDNS", "AzurePlatformIMDS", "AzurePlatformLKM"}
SIZES = ("Standard_D2s_v5", "Standard_D2s_v6")
"""The second has NVMe only."""


@probes("azure-plain-upload-boots", "azure-guest-shutdown", "azure-inline-interface")
@pytest.mark.parametrize("size", SIZES)
def test_a_plain_upload_boots_and_its_shutdown_is_seen(
    azure: RealAzure, observed: Observed, tmp_path: Path, size: str
):
    """The sample's EFI program switches the machine off, as a guest that is finished does."""
    cloud = azure.cloud(boot_vm_size=size)
    image = (
        Path(azure.named.get("disk", ""))
        if "disk" in azure.named
        else (build_sample(tmp_path / "sample.vhdx"))
    )
    seen: list[str] = []

    def watch(event: Event) -> None:
        if "boots" in event.note:
            machine = describe_machine(azure.account(), event.note.split()[1])
            seen.append(machine.power if machine else "gone")

    with LocalFolder(image.parent) as folder, folder.open_read(image.name) as file:
        disk = open_disk(file)
        target = cloud.upload_target("probe")
        request = TransferRequest(azure.state.journals.open("probe"), azure.site)
        reference = transfer(disk, target, request).reference
        target.close()
        disk.close()
    work = cloud.make_disk(reference, "")
    outcome = cloud.boot_once(work, deadline_seconds=600, events=watch)
    kinds = sorted(resource.kind for resource in cloud.list_ours(azure.site))
    observed(
        f"{size}: {outcome.seconds:.0f} s, by itself {outcome.stopped_by_itself}, "
        f"{outcome.reason or 'stopped'}; power at start {seen}; left {kinds}"
    )
    assert outcome.stopped_by_itself
    assert "network-interface" not in kinds


@probes("azure-engine-machine")
def test_the_engine_s_machine_finds_script_disk_and_job(
    azure: RealAzure, observed: Observed, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(engine_setup, "build_engine", build_stand_in)
    cloud = azure.cloud()
    disk = cloud.make_disk(uploaded(cloud, BLOCKS), "")
    job = EngineJob(
        action=Action.COMPOSE,
        disk=EngineDisk(path="", disk_guid=""),
        options=EngineOptions(recommended=("work",)),
    )
    report = cloud.run_engine(disk, job, deadline_seconds=900)
    observed(f"first bytes {report.first_boot['first_bytes']}")
    assert report.first_boot["first_bytes"] == BLOCKS[0][:16].hex()


@probes("azure-service-tags")
def test_the_isolated_group_denies_the_platform_s_own_addresses(
    azure: RealAzure, observed: Observed
):
    account = azure.account()
    group_id = isolated_group(account)
    try:
        kind = "Microsoft.Network/networkSecurityGroups/read"
        found = account.clients.arm.get(group_id, NETWORK_API, kind) or {}
        rules = found["properties"]["securityRules"]
        denied = {
            rule["properties"]["destinationAddressPrefix"]
            for rule in rules
            if rule["properties"]["access"] == "Deny"
        }
    finally:
        delete_group(account, group_id)
    observed(f"denied destinations: {sorted(denied)}")
    assert denied >= DENIED_TAGS


@probes("azure-permissions-list")
def test_the_granted_actions_are_told_without_an_extra_right(azure: RealAzure, observed: Observed):
    settings = azure.settings()
    found = {}
    for scope in (
        settings.group_id,
        settings.subnet_id,
        f"/subscriptions/{settings.subscription_id}",
    ):
        path = f"{scope}/providers/Microsoft.Authorization/permissions"
        found[scope] = len(list(azure.clients.arm.pages(path, AUTHORIZATION_API, SELF_TEST)))
    observed(f"roles by scope: {found}")
    assert found[settings.group_id] > 0


@probes("azure-role")
def test_the_roles_of_the_docs_are_enough(azure: RealAzure, observed: Observed):
    """Run with an identity that has these roles and no more."""
    cloud = azure.cloud()
    gaps = [gap.action for gap in cloud.check_permissions()]
    place = [str(problem) for problem in cloud.check_place("probe", GIB)]
    reference = uploaded(cloud, BLOCKS)
    disk = cloud.make_disk(reference, "")
    for resource in cloud.list_ours(azure.site):
        cloud.delete_resource(resource)
    observed(f"gaps: {gaps or 'none'}; place: {place or 'fits'}; {disk.id.rsplit('/', 1)[-1]}")
    assert gaps == []
