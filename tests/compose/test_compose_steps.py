"""What composing changes, on the sample's real hives and files laid out in a folder."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.contract import EngineOptions
from imageport.compose.hives.registry_value import Value
from imageport.compose.steps.order import STEPS, option_refusals, recommended_names

SETS = ("ControlSet001", "ControlSet002")


def hivexget(hive: Path, key: str, name: str) -> str:
    """Return a value as libhivex' own program prints it."""
    done = subprocess.run(
        ["hivexget", hive, f"\\{key}", name], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else "(missing)"


def test_plan_and_compose_make_the_same_changes(guest: Any) -> None:
    options = EngineOptions(list_of_ddcs=("ddc.new.example",), recommended=recommended_names("aws"))
    planned = guest.changes(options, apply=False)
    assert guest.compose(options) == planned
    assert planned


def test_the_same_image_gives_the_same_bytes_twice(new_guest: Callable[[], Any]) -> None:
    one, other = new_guest(), new_guest()
    assert one.compose() == other.compose()
    for name in ("SYSTEM", "SOFTWARE"):
        assert one.hive(name).read_bytes() == other.hive(name).read_bytes()


def test_planning_leaves_every_file_as_it_was(guest: Any) -> None:
    def content() -> dict[Path, bytes]:
        files = [path for path in guest.windows.root.rglob("*") if path.is_file()]
        return {path: path.read_bytes() for path in files}

    before = content()
    guest.changes(EngineOptions(), apply=False)
    assert content() == before


@pytest.mark.parametrize("control_set", SETS)
def test_boot_drivers_start_and_nothing_overrides_them(guest: Any, control_set: str) -> None:
    guest.compose()
    system = guest.hive("SYSTEM")
    assert hivexget(system, f"{control_set}\\Services\\stornvme", "Start") == "0"
    for driver in ("stornvme", "storahci", "vmbus", "storvsc", "storflt"):
        place = f"{control_set}\\Services\\{driver}\\StartOverride"
        assert hivexget(system, place, "0") == "(missing)"


@pytest.mark.parametrize("control_set", SETS)
def test_vmware_is_gone_but_its_disk_driver_stays(guest: Any, control_set: str) -> None:
    guest.compose()
    system = guest.hive("SYSTEM")
    for service in ("VMTools", "VGAuthService", "vmci", "vsock", "vmrawdsk", "VMMemCtl"):
        assert hivexget(system, f"{control_set}\\Services\\{service}", "Start") == "(missing)"
    assert hivexget(system, f"{control_set}\\Services\\pvscsi", "Start") == "0"


@pytest.mark.parametrize("control_set", SETS)
def test_addresses_come_from_dhcp_and_the_old_ones_are_reported(
    guest: Any, control_set: str
) -> None:
    changes = guest.compose()
    place = (
        f"{control_set}\\Services\\Tcpip\\Parameters\\Interfaces"
        "\\{7c3f2b90-5a1d-4e86-b0f4-2d9e8a61c753}"
    )
    assert hivexget(guest.hive("SYSTEM"), place, "EnableDHCP") == "1"
    assert hivexget(guest.hive("SYSTEM"), place, "IPAddress") == "(missing)"
    reported = {c.name: c.before for c in changes if c.path == f"HKLM\\SYSTEM\\{place}"}
    assert reported["IPAddress"] == "REG_MULTI_SZ 10.20.30.40"
    assert reported["NameServer"] == "REG_SZ 10.20.30.5,10.20.30.6"


def test_held_services_are_disabled_and_the_plan_puts_them_back(guest: Any) -> None:
    guest.compose()
    plan = guest.windows.read("Windows/ImageportFirstBoot/plan.txt", 4096).decode()
    for service, start in (("BrokerAgent", 2), ("CcmExec", 2), ("wuauserv", 3)):
        for control_set in SETS:
            place = f"{control_set}\\Services\\{service}"
            assert hivexget(guest.hive("SYSTEM"), place, "Start") == "4"
        assert f"required restore-service {service} {start}\r\n" in plan
    assert "restore-value Services\\Netlogon\\Parameters DisablePasswordChange dword:0" in plan
    assert plan.rstrip().endswith("required remove-service ImageportFirstBoot")


def test_the_current_control_set_is_the_one_that_the_loader_takes(guest: Any) -> None:
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        assert registry.current_control_set == "ControlSet001"
        select = registry.hives["SYSTEM"].ensure("Select")
        select.set("Default", Value.dword(2))
        assert registry.current_control_set == "ControlSet002"
        select.delete_value("Default")
        assert registry.current_control_set == "ControlSet001"


def test_a_control_set_in_which_a_service_differs_is_neither_held_nor_restored(guest: Any) -> None:
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        system = registry.hives["SYSTEM"]
        system.ensure("ControlSet002\\Services\\BrokerAgent").set("Start", Value.dword(3))
        registry.service("ControlSet002", "CcmExec").delete()
        password = "ControlSet002\\Services\\Netlogon\\Parameters"
        system.ensure(password).set("DisablePasswordChange", Value.dword(1))
        system.commit()
        guest.hive("SYSTEM").write_bytes(system.path.read_bytes())
    guest.compose()
    place = "ControlSet002\\Services\\BrokerAgent"
    assert hivexget(guest.hive("SYSTEM"), place, "Start") == "3"
    assert hivexget(guest.hive("SYSTEM"), "ControlSet001\\Services\\BrokerAgent", "Start") == "4"
    script = guest.windows.read("Windows/ImageportFirstBoot/firstboot.cmd", 65536).decode()
    assert "ControlSet001\\Services\\CcmExec" in script
    assert "ControlSet001\\Services\\Netlogon\\Parameters" in script
    for name in ("BrokerAgent", "CcmExec", "Netlogon\\Parameters"):
        assert f"ControlSet002\\Services\\{name}" not in script


def test_the_network_driver_must_install_at_first_boot(guest: Any) -> None:
    guest.compose()
    plan = guest.windows.read("Windows/ImageportFirstBoot/plan.txt", 4096).decode()
    assert "required add-driver ena\\ena.inf\r\n" in plan
    assert guest.windows.names("Windows/ImageportFirstBoot/drivers/ena") == [
        "ena.cat",
        "ena.inf",
        "ena.sys",
    ]


def test_recommended_steps_run_only_when_named(guest: Any) -> None:
    before = guest.changes(EngineOptions(), apply=False)
    assert not [c for c in before if c.tier != "required"]
    chosen = EngineOptions(recommended=("cloud_time_server",))
    after = guest.compose(chosen)
    assert {c.step for c in after if c.tier == "recommended"} == {"cloud_time_server"}
    for control_set in SETS:
        place = f"{control_set}\\Services\\W32Time\\Parameters"
        assert hivexget(guest.hive("SYSTEM"), place, "NtpServer") == "169.254.169.123,0x9"


def test_controllers_are_set_only_when_given(guest: Any) -> None:
    place = ("Citrix\\VirtualDesktopAgent", "ListOfDDCs")
    old = hivexget(guest.hive("SOFTWARE"), *place)
    guest.changes(EngineOptions(), apply=False)
    notes = {note.name: note for note in guest.notes}
    assert notes["point_vda_at_controllers"].reason == "not asked for"
    changes = guest.compose(EngineOptions(list_of_ddcs=("a.example", "b.example")))
    assert hivexget(guest.hive("SOFTWARE"), *place) == "a.example b.example"
    reported = [c for c in changes if c.name == "ListOfDDCs"]
    assert [c.before for c in reported] == [f"REG_SZ {old}"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (EngineOptions(recommended=("rdp_on",)), "'rdp_on' is no recommended step"),
        (EngineOptions(list_of_ddcs=("a b",)), "'a b' is no host name"),
        (EngineOptions(first_boot_attempts=0), "0 is not within 1 to 10"),
        (EngineOptions(first_boot_deadline_seconds=5), "5 is not within 60 to 7200"),
        (EngineOptions(provisioning="vdi"), "'vdi' is not pvs or mcs"),
    ],
)
def test_options_out_of_bounds_are_refused(options: EngineOptions, message: str) -> None:
    refusals = option_refusals(options)
    assert len(refusals) == 1
    assert message in refusals[0].reason
    assert refusals[0].hint


def test_all_wrong_options_are_named_at_once() -> None:
    wrong = EngineOptions(recommended=("x", "y"), list_of_ddcs=("-",), first_boot_attempts=99)
    assert len(option_refusals(wrong)) == 4


def test_every_step_describes_itself_and_finds_what_it_needs() -> None:
    provided: set[str] = set()
    for step in STEPS:
        assert step.summary.endswith("."), step.name
        assert set(step.needs) <= provided, step.name
        assert set(step.options) <= set(EngineOptions.__dataclass_fields__), step.name
        provided |= set(step.provides)
    names = [step.name for step in STEPS]
    assert len(set(names)) == len(names)
