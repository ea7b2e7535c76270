"""What composing for Azure changes, beside what it changes for AWS, and what it leaves alone."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import Action, Change, EngineDisk, EngineJob, EngineOptions, Tier
from imageport.compose.refusals import disk_refusals, driver_refusals
from imageport.compose.steps.order import (
    STEPS,
    option_refusals,
    recommended_names,
    step_refusals,
)
from imageport.compose.volumes.descriptors import Access, describe
from imageport.compose.volumes.partition_table import PartitionTable
from imageport.sandbox.sample.azure_faults import break_for_azure
from imageport.sandbox.sample.hives import merge_text
from imageport.sandbox.sample.recipe import Variant

GOLDEN = Path(__file__).parent / "golden"
SETS = ("ControlSet001", "ControlSet002")
AZURE = EngineOptions(cloud="azure")


def broken(guest: Any, variant: Variant) -> Any:
    break_for_azure(guest.hive("SYSTEM").parent, variant)
    return guest


ACCESS = {describe(access.descriptor(is_folder=False)): str(access) for access in Access}


def line(change: Change) -> str:
    """One line of a golden list; files that the script's text makes up only by name."""
    after = re.sub(r"^\d+ bytes sha256:.*", "(content)", change.after)
    if change.kind == "descriptor":
        after = ACCESS.get(after, after)
    before = change.before
    if len(before) > 120:
        before = f"{before[:110]}… {hashlib.sha256(before.encode()).hexdigest()[:8]}"
    path = re.sub(r"ControlSet\d{3}", "ControlSet*", change.path)
    return f"{change.step} | {change.kind} | {path} | {change.name} | {before} | {after}"


def lines(changes: list[Change]) -> list[str]:
    """A golden list: what every control set gets stands once, with how many there are.

    What was added has its access in the same line.
    """
    found: list[str] = []
    for change in changes:
        if change.kind == "descriptor":
            assert f" | {change.path} | " in found[-1], "a descriptor follows what it is for"
            found[-1] += f" | {line(change).rpartition(' | ')[2]}"
        else:
            found.append(line(change))
    return [f"{count}x {text}" for text, count in Counter(found).items()]


@pytest.mark.parametrize("cloud", sorted(TARGETS))
def test_the_changes_are_those_of_the_golden_list(guest: Any, cloud: str) -> None:
    guest.bring_packages_of(cloud)
    changes = guest.changes(EngineOptions(cloud=cloud), apply=False)
    path = GOLDEN / f"{cloud}_changes.txt"
    if os.environ.get("IMAGEPORT_WRITE_GOLDEN"):  # after a change that is meant; review the diff
        path.write_text("".join(text + "\n" for text in lines(changes)), encoding="utf-8")
    assert lines(changes) == path.read_text(encoding="utf-8").splitlines()


def test_the_golden_lists_differ_where_the_clouds_do() -> None:
    aws, azure = (
        set((GOLDEN / f"{cloud}_changes.txt").read_text(encoding="utf-8").splitlines())
        for cloud in ("aws", "azure")
    )
    only_aws = {text.partition("x ")[2].split(" | ")[0] for text in aws - azure}
    # The drivers, and that of the classes' last entries of VMware's more or less stays.
    assert only_aws == {"install_drivers", "stage_drivers", "remove_vmware_tools"}
    vpci = {text for text in azure - aws if "remove_vmware_tools" not in text}
    assert {text.split(" | ")[2] for text in vpci} == {"HKLM\\SYSTEM\\ControlSet*\\Services\\vpci"}


Expected = tuple[tuple[str, str, str, str], ...]
"""(key below the control set, value, before, after), the same in every control set."""

BEHAVIOUR: dict[str, tuple[Variant | None, Expected]] = {
    "enable_boot_drivers": (
        None,
        (
            ("Services\\vpci", "Start", "REG_DWORD 3", "REG_DWORD 0"),
            ("Services\\vmbus\\StartOverride", "", "0=REG_DWORD 3", ""),
            ("Services\\storvsc\\StartOverride", "", "0=REG_DWORD 3", ""),
            ("Services\\storflt\\StartOverride", "", "0=REG_DWORD 3", ""),
            ("Services\\stornvme\\StartOverride", "", "0=REG_DWORD 3", ""),
            ("Services\\storahci\\StartOverride", "", "0=REG_DWORD 3", ""),
        ),
    ),
    "bring_disks_online": (
        Variant.OFFLINE_SAN,
        (("Services\\partmgr\\Parameters", "SanPolicy", "REG_DWORD 2", "REG_DWORD 1"),),
    ),
    "enable_dvd_drive": (
        Variant.DVD_DISABLED,
        (("Services\\cdrom", "Start", "REG_DWORD 4", "REG_DWORD 1"),),
    ),
    "cloud_time_server": (
        None,
        (
            ("Services\\W32Time", "Start", "REG_DWORD 3", "REG_DWORD 2"),
            ("Services\\W32Time\\TimeProviders\\NtpClient", "Enabled", "REG_DWORD 1",
             "REG_DWORD 0"),
        ),
    ),
    "crash_dumps": (
        None,
        (
            ("Control\\CrashControl", "CrashDumpEnabled", "REG_DWORD 7", "REG_DWORD 2"),
            ("Control\\CrashControl", "NMICrashDump", "", "REG_DWORD 1"),
        ),
    ),
    "high_performance": (
        None,
        (
            ("Control\\Power\\User\\PowerSchemes", "ActivePowerScheme",
             "REG_SZ 381b4222-f694-41f0-9685-ff5bb260df2e",
             "REG_SZ 8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c"),
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("step", BEHAVIOUR)
def test_a_step_makes_these_changes_in_every_control_set(guest: Any, step: str) -> None:
    variant, expected = BEHAVIOUR[step]
    if variant is not None:
        broken(guest, variant)
    chosen = () if step in {s.name for s in STEPS if s.tier is Tier.REQUIRED} else (step,)
    changes = guest.compose(EngineOptions(cloud="azure", recommended=chosen))
    found = sorted((c.path, c.name, c.before, c.after) for c in changes if c.step == step)
    assert found == sorted(
        (f"HKLM\\SYSTEM\\{control_set}\\{key}", name, before, after)
        for control_set in SETS
        for key, name, before, after in expected
    )


def test_a_driver_that_only_old_systems_have_is_set_to_start_where_it_is(guest: Any) -> None:
    idle = '[\\ControlSet001\\Services\\intelide]\n"Start"=dword:00000003\n\n'
    override = '[\\ControlSet001\\Services\\atapi\\StartOverride]\n"0"=dword:00000003\n\n'
    gone = "[-\\ControlSet002\\Services\\atapi]\n"
    merge_text(guest.hive("SYSTEM"), idle + override + gone)
    changes = guest.compose(AZURE)
    found = {(c.path, c.name, c.after) for c in changes}
    where = "HKLM\\SYSTEM\\ControlSet001\\Services"
    assert (f"{where}\\intelide", "Start", "REG_DWORD 0") in found
    assert (f"{where}\\atapi\\StartOverride", "", "") in found
    assert not [c for c in changes if "ControlSet002\\Services\\atapi" in c.path]
    assert guest.judge(options=AZURE)["boot_drivers"].passed


def test_first_boot_removes_the_overrides_that_it_leaves_itself(guest: Any) -> None:
    merge_text(guest.hive("SYSTEM"), "[-\\ControlSet001\\Services\\atapi]\n")
    guest.compose(AZURE)
    plan = guest.windows.read("Windows/ImageportFirstBoot/plan.txt", 4096).decode()
    drivers = re.findall(r"required remove-override (\w+)", plan)
    target = TARGETS["azure"]
    assert drivers == [*target.boot_drivers, "intelide"]


def test_an_override_under_pci_goes_too_as_images_from_hyper_v_have_it(guest: Any) -> None:
    override = '[\\ControlSet002\\Services\\pci\\StartOverride]\n"0"=dword:00000003\n'
    merge_text(guest.hive("SYSTEM"), override)
    for cloud in TARGETS:
        changes = guest.changes(EngineOptions(cloud=cloud), apply=False)
        found = [c.path for c in changes if "\\pci\\" in c.path]
        assert found == ["HKLM\\SYSTEM\\ControlSet002\\Services\\pci\\StartOverride"]


def test_a_proxy_of_services_goes_and_is_shown_as_its_digest_only(guest: Any) -> None:
    key = "\\Microsoft\\Windows\\CurrentVersion\\Internet Settings\\Connections"
    data = ",".join(f"{byte:02x}" for byte in b"\x18\0\0\0http=proxy.corp.example:3128")
    merge_text(guest.hive("SOFTWARE"), f'[{key[:-12]}]\n\n[{key}]\n"WinHttpSettings"=hex:{data}\n')
    options = EngineOptions(cloud="azure", recommended=("no_winhttp_proxy",))
    (change,) = [c for c in guest.compose(options) if c.step == "no_winhttp_proxy"]
    assert change.name == "WinHttpSettings"
    assert change.before.startswith("sha256:")
    assert change.after == ""


@pytest.mark.parametrize(
    "path",
    [
        "Control\\Terminal Server", "Services\\TermService", "Services\\RemoteRegistry",
        "Services\\sacsvr", "Session Manager\\Memory Management", "Session Manager\\Environment",
        "Tcpip6", "TCPIP6", "FirewallPolicy", "Netlogon\\Start",
    ],
)  # fmt: skip
def test_with_every_step_chosen_this_is_still_not_touched(guest: Any, path: str) -> None:
    changes = guest.compose(EngineOptions(cloud="azure", recommended=recommended_names("azure")))
    assert not [c for c in changes if path.lower() in f"{c.path}\\{c.name}".lower()]


@pytest.mark.parametrize("cloud", sorted(TARGETS))
def test_preparing_twice_comes_to_the_same_as_once(guest: Any, cloud: str) -> None:
    options = EngineOptions(cloud=cloud, recommended=recommended_names(cloud))
    guest.compose(options)
    folder = guest.windows.root / "Windows/ImageportFirstBoot"
    shutil.rmtree(folder)  # as after a boot whose traces were taken away
    hive = guest.hive("SYSTEM")
    for name in SETS:
        merge_text(hive, f"[-\\{name}\\Services\\ImageportFirstBoot]\n")
    again = guest.changes(options, apply=False)
    assert [change for change in again if "ImageportFirstBoot" not in change.path] == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EngineOptions(recommended=("crash_dumps",)), "'crash_dumps' is no recommended step"),
        (EngineOptions(cloud="azure", recommended=("ems",)), "there are ignore_boot_failures"),
        (EngineOptions(cloud="azure", recommended=("azure_vm_agent",)), "no recommended step"),
        (EngineOptions(azure_vm_agent="a.msi"), "'a.msi' is for azure, not aws"),
    ],
)
def test_options_of_another_cloud_are_refused(options: EngineOptions, message: str) -> None:
    (found,) = option_refusals(options)
    assert message in found.reason


@pytest.mark.parametrize(
    "options",
    [
        EngineOptions(cloud="azure", recommended=recommended_names("azure")),
        EngineOptions(cloud="azure", azure_vm_agent="agent/x.msi"),
        EngineOptions(recommended=recommended_names("aws")),
    ],
)
def test_options_that_fit_are_not(options: EngineOptions) -> None:
    assert option_refusals(options) == []


@pytest.mark.parametrize(
    ("variant", "options", "codes"),
    [
        (Variant.SMALL, {"recommended": recommended_names("azure")}, []),
        (Variant.WITHOUT_HOST_TIME, {"recommended": ("cloud_time_server",)}, ["no_host_time"]),
        (Variant.WITHOUT_HOST_TIME, {}, []),
        (Variant.WITHOUT_DOTNET, {"azure_vm_agent": "a.msi"}, ["dotnet_missing"]),
        (Variant.WITHOUT_DOTNET, {}, []),
    ],
)
def test_a_step_refuses_a_guest_in_which_it_cannot_work(
    guest: Any, variant: Variant, options: dict[str, Any], codes: list[str]
) -> None:
    broken(guest, variant)
    with ExitStack() as stack:
        registry = guest.registry(stack)
        found = step_refusals(guest.facts(registry, EngineOptions(cloud="azure", **options)))
    assert [item.code for item in found] == codes
    assert all(item.hint and item.reason for item in found)


def test_an_image_without_the_power_scheme_is_refused_only_when_it_is_asked_for(
    guest: Any,
) -> None:
    scheme = "Control\\Power\\User\\PowerSchemes\\8c5e7fda-e8bf-4a96-9a85-a6e23a8c635c"
    merge_text(guest.hive("SYSTEM"), f"[-\\ControlSet002\\{scheme}]\n")
    with ExitStack() as stack:
        registry = guest.registry(stack)
        chosen = EngineOptions(cloud="azure", recommended=("high_performance",))
        (found,) = step_refusals(guest.facts(registry, chosen))
        assert step_refusals(guest.facts(registry, AZURE)) == []
    assert found.code == "no_power_scheme"
    assert "ControlSet002" in found.reason
    assert "ControlSet001" not in found.reason


@pytest.mark.parametrize("provisioning", ["pvs", "mcs"])
def test_a_bios_image_is_refused_for_azure_with_the_reason(provisioning: str) -> None:
    options = EngineOptions(cloud="azure", provisioning=provisioning)
    job = EngineJob(Action.COMPOSE, EngineDisk(""), options)
    (found,) = disk_refusals(PartitionTable("mbr", "", ()), job)
    assert found.code == "needs_uefi"
    assert "generation 2" in found.reason


def test_an_image_without_its_own_network_driver_is_refused_as_no_package_can_help(
    guest: Any,
) -> None:
    broken(guest, Variant.WITHOUT_NETVSC)
    with ExitStack() as stack:
        registry = guest.registry(stack)
        job = EngineJob(Action.COMPOSE, EngineDisk(""), AZURE)
        (found,) = driver_refusals(registry, guest.windows, (), job, TARGETS["azure"])
    assert found.code == "driver_missing"
    assert "DISM" in found.hint
    assert "VMBUS\\{f8615163" in found.reason


def test_the_image_as_it_is_has_a_driver_for_azure_and_needs_no_package(guest: Any) -> None:
    with ExitStack() as stack:
        job = EngineJob(Action.COMPOSE, EngineDisk(""), AZURE)
        registry = guest.registry(stack)
        assert driver_refusals(registry, guest.windows, (), job, TARGETS["azure"]) == []
