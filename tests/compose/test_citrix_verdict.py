"""The verdict about Citrix software, before the boot and after an emulated one installed it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineOptions, Installer
from imageport.compose.hives.registry import hive_path
from imageport.compose.steps.citrix.point_vda_at_controllers import PointVdaAtControllers
from imageport.sandbox.guest_player.installers import Machine, program_of, run_installer
from imageport.sandbox.guest_player.registry import Hive
from imageport.sandbox.sample.guest_kind import GuestKind, Platform, Provisioning
from imageport.sandbox.sample.hives import merge_text, with_parents
from imageport.sandbox.sample.installer_package import sha256_of, write_installer
from tests.sandbox.guest_player.plain_volume import PlainVolume

PROGRAMS = "Windows/ImageportFirstBoot/programs"
PVS = EngineOptions(rearm="off")
MCS = EngineOptions(provisioning="mcs", rearm="off")
NEW = "2407.0.0.10"


def bring(guest: Any, software: str, arguments: tuple[str, ...], version: str = NEW) -> Installer:
    path = write_installer(guest.payload / "citrix", software, version)
    name = software.replace("_", "-")
    return Installer(software, name, version, sha256_of(path), f"citrix/{path.name}", arguments)


def install(guest: Any, program: str) -> str:
    """Do what first boot does with a staged installer, by the player's rules."""
    command = guest.windows.read(f"{PROGRAMS}/{program}.cmd", 65536)
    found = program_of(command)
    assert found is not None
    path, arguments = found
    root = guest.windows.root
    system, software = (Hive(root / hive_path(name)) for name in ("SYSTEM", "SOFTWARE"))
    place = f"{PROGRAMS}/{path}".replace("/", "\\")
    machine = Machine(PlainVolume(root), system, software, "ControlSet001")
    code = run_installer(machine, place, arguments)
    system.flush()
    software.flush()
    return code


def edit(guest: Any, text: str, hive: str = "SYSTEM") -> None:
    merge_text(guest.hive(hive), with_parents("", text))


@pytest.fixture
def bare_guest(new_guest: Callable[..., Any]) -> Any:
    return new_guest(GuestKind(platform=Platform.HYPERV, provisioning=Provisioning.NONE))


def test_an_upgrade_is_judged_by_what_the_installer_left(guest: Any) -> None:
    installer = bring(guest, "pvs_target", ("/S", '/v"/qn /norestart"'))
    options = replace(PVS, installers=(installer,))
    guest.compose(options)
    before = guest.judge(Action.VERIFY, options)["pvs_target"]
    assert not before.passed
    assert "found version 2402.0.0.78, needed 2407.0.0.10" in before.evidence
    assert "BNDevice.exe is 2402.0.0.78, needed 2407.0.0.10" in before.evidence
    assert install(guest, "install-pvs-target") == "0"
    after = guest.judge(Action.VERIFY, options)["pvs_target"]
    assert after.passed, after.evidence
    assert after.evidence == (
        "target device software 2407.0.0.10; BNDevice.exe 2407.0.0.10; bnistack6.sys 2407.0.0.10; "
        "CVhdMp.sys 2407.0.0.10; CFsDep2.sys 2407.0.0.10"
    )


def test_software_that_was_not_there_is_installed_in_the_set_that_runs(bare_guest: Any) -> None:
    installer = bring(bare_guest, "pvs_target", ("/s",))
    options = replace(PVS, installers=(installer,))
    bare_guest.compose(options)
    missing = bare_guest.judge(Action.VERIFY, options)["pvs_target"]
    assert missing.evidence == "the target device software is not installed"
    assert install(bare_guest, "install-pvs-target") == "0"
    assert bare_guest.judge(Action.VERIFY, options)["pvs_target"].passed


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("CFsDep2.sys", "service CFsDep2 lacks its file Windows/System32/drivers/CFsDep2.sys"),
        ("BNDevice", "service BNDevice is disabled"),
        ("CVhdMp", "service CVhdMp is disabled"),
    ],
)
def test_a_part_that_is_missing_or_disabled_fails_the_target_software(
    guest: Any, change: str, problem: str
) -> None:
    if change.endswith(".sys"):
        guest.windows.remove(f"Windows/System32/drivers/{change}")
    else:
        edit(guest, f'[\\ControlSet002\\Services\\{change}]\n"Start"=dword:00000004\n')
    item = guest.judge(options=PVS)["pvs_target"]
    assert not item.passed
    assert f"ControlSet002: {problem}" in item.evidence


@pytest.mark.parametrize(
    ("software", "arguments", "item", "file"),
    [
        ("vda", ("/quiet",), "vda", "BrokerAgent.exe"),
        ("machine_identity", (), "machine_identity", "PvsVmAgent.exe"),
        ("mcs_io", (), "mcs_io", "CVhdMp.sys"),
    ],
)
def test_other_software_is_judged_in_the_same_way(
    bare_guest: Any, software: str, arguments: tuple[str, ...], item: str, file: str
) -> None:
    version = "9999.0.0.1"
    installer = bring(bare_guest, software, arguments, version)
    options = replace(MCS, installers=(installer,))
    bare_guest.compose(options)
    assert bare_guest.judge(options=options)[item].passed
    assert not bare_guest.judge(Action.VERIFY, options)[item].passed
    assert install(bare_guest, f"install-{installer.name}") == "0"
    if software == "vda":
        edit(bare_guest, '[\\ControlSet001\\Services\\BrokerAgent]\n"Start"=dword:00000002\n')
    found = bare_guest.judge(Action.VERIFY, options)[item]
    assert found.passed, found.evidence
    assert f"{file} {version}" in found.evidence


def test_versions_counted_in_different_ways_are_not_compared(guest: Any) -> None:
    installer = Installer("vda", "vda", "2402.0", "0" * 64, "vda.exe")
    options = replace(PVS, installers=(installer,))
    edit(guest, '[\\ControlSet001\\Services\\BrokerAgent]\n"Start"=dword:00000002\n')
    item = guest.judge(Action.VERIFY, options)["vda"]
    assert item.passed, item.evidence
    assert "Virtual Delivery Agent 2402.0.100.629; BrokerAgent.exe 7.41.100.629" in item.evidence


def test_an_agent_counted_in_another_way_than_asked_for_is_no_fault(bare_guest: Any) -> None:
    installer = bring(bare_guest, "machine_identity", (), "7.42.0.1")
    options = replace(MCS, installers=(replace(installer, version="2407"),))
    bare_guest.compose(options)
    assert install(bare_guest, "install-machine-identity") == "0"
    item = bare_guest.judge(Action.VERIFY, options)["machine_identity"]
    assert item.passed, item.evidence
    assert item.evidence.startswith("machine identity agent 7.42.0.1")


def test_the_agent_that_is_held_for_the_boot_is_no_fault_before_it(guest: Any) -> None:
    guest.compose(PVS)
    assert guest.judge(options=PVS)["vda"].passed
    asked = replace(PVS, installers=(Installer("vda", "vda", "2402", "0" * 64, "vda.exe"),))
    after = guest.judge(Action.VERIFY, asked)["vda"]
    assert after.evidence == "ControlSet001: service BrokerAgent is disabled"
    told = guest.judge(Action.VERIFY, PVS)["vda"]
    assert told.passed
    assert "ControlSet001: service BrokerAgent is disabled" in told.evidence
    guest.windows.remove("Program Files/Citrix/Virtual Desktop Agent/BrokerAgent.exe")
    assert "service BrokerAgent lacks its file" in guest.judge(options=PVS)["vda"].evidence


def test_a_policy_that_overrides_the_controllers_is_told(guest: Any) -> None:
    edit(
        guest,
        "[\\Policies\\Citrix\\VirtualDesktopAgent]\n" + '"ListOfDDCs"="ddc.policy.example"\n',
        "SOFTWARE",
    )
    options = replace(PVS, list_of_ddcs=("ddc.new.example",))
    guest.compose(options)
    item = guest.judge(options=options)["vda"]
    assert item.passed
    assert "registers with ddc.new.example" in item.evidence
    assert "a policy puts ddc.policy.example in place of these controllers" in item.evidence


def test_controllers_other_than_those_asked_for_fail(guest: Any) -> None:
    options = replace(PVS, list_of_ddcs=("ddc.new.example",))
    item = guest.judge(options=options)["vda"]
    assert not item.passed
    assert "needed 'ddc.new.example'" in item.evidence
    by_setup = replace(options, vda_reconfigure=("/controllers", "ddc.new.example"))
    assert guest.judge(options=by_setup)["vda"].passed


def without_vda(guest: Any) -> None:
    product = "Microsoft\\Windows\\CurrentVersion\\Uninstall\\CitrixVirtualDesktopAgent"
    merge_text(guest.hive("SOFTWARE"), f"[-\\Citrix\\VirtualDesktopAgent]\n\n[-\\{product}]\n")


def test_an_agent_that_is_brought_finds_its_controllers(bare_guest: Any) -> None:
    without_vda(bare_guest)
    installer = bring(bare_guest, "vda", ("/quiet",))
    options = replace(MCS, installers=(installer,), list_of_ddcs=("ddc.new.example",))
    bare_guest.compose(options)
    before = bare_guest.judge(options=options)["vda"]
    assert before.evidence == (
        f"first boot installs Virtual Delivery Agent {NEW}; registers with ddc.new.example"
    )
    assert install(bare_guest, "install-vda") == "0"
    edit(bare_guest, '[\\ControlSet001\\Services\\BrokerAgent]\n"Start"=dword:00000002\n')
    assert bare_guest.judge(Action.VERIFY, options)["vda"].passed
    changed = '[\\Citrix\\VirtualDesktopAgent]\n"ListOfDDCs"="ddc.old.example"\n'
    edit(bare_guest, changed, "SOFTWARE")
    lost = bare_guest.judge(Action.VERIFY, options)["vda"]
    assert lost.evidence == "it registers with 'ddc.old.example', needed 'ddc.new.example'"
    own = replace(installer, arguments=("/quiet", "/controllers", "ddc.old.example"))
    assert bare_guest.judge(Action.VERIFY, replace(options, installers=(own,)))["vda"].passed


def test_controllers_for_an_agent_that_nobody_brings_are_refused(bare_guest: Any) -> None:
    options = replace(MCS, list_of_ddcs=("ddc.new.example",))
    for is_there in (True, False):
        if not is_there:
            without_vda(bare_guest)
        with ExitStack() as stack:
            facts = bare_guest.facts(bare_guest.registry(stack), options)
            codes = [found.code for found in PointVdaAtControllers().guest_problems(facts)]
        assert codes == ([] if is_there else ["vda_missing"])


@pytest.mark.parametrize(
    ("service", "is_complete"), [("CVhdFilter", True), ("CVhdMp", True), ("CVhdOther", False)]
)
def test_the_write_cache_driver_is_known_by_both_of_its_names(
    bare_guest: Any, service: str, is_complete: bool
) -> None:
    installer = Installer("mcs_io", "io", "2407", "0" * 64, "io.msi")
    product = "Microsoft\\Windows\\CurrentVersion\\Uninstall\\io"
    listed = '"DisplayName"="Citrix MCS IODriver"\n"DisplayVersion"="2407.0.0.1"\n'
    edit(bare_guest, f"[\\{product}]\n{listed}", "SOFTWARE")
    edit(bare_guest, f'[\\ControlSet001\\Services\\{service}]\n"Start"=dword:00000000\n')
    drivers = bare_guest.windows.root / "Windows/System32/drivers"
    (drivers / f"{service}.sys").write_bytes(b"MZ")
    item = bare_guest.judge(Action.VERIFY, replace(MCS, installers=(installer,)))["mcs_io"]
    assert item.passed is is_complete
    if not is_complete:
        assert "service CVhdFilter or CVhdMp does not exist" in item.evidence


def test_an_image_without_citrix_software_is_told_so(bare_guest: Any) -> None:
    edit(bare_guest, "[\\Citrix]\n", "SOFTWARE")
    verdict = bare_guest.judge(options=MCS)
    assert verdict["mcs_io"].evidence == "the write cache driver is not installed"
    assert verdict["machine_identity"].evidence == "the machine identity agent is not installed"
    assert verdict["pvs_target"].evidence == "not needed for this provisioning"
    assert verdict["installers"].evidence == "none has to run"
