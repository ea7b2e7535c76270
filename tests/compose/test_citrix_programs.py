"""Steps of the Citrix group that run a program at first boot: when, and which plain text."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineOptions, Installer
from imageport.compose.steps.citrix.leave_domain import LeaveDomain
from imageport.compose.steps.citrix.reconfigure_vda import SETUP, ReconfigureVda
from imageport.compose.steps.citrix.uninstall_pvs_target import UninstallPvsTarget, find_product
from imageport.compose.steps.order import option_refusals
from imageport.sandbox.sample.guest_kind import GuestKind, Platform, Provisioning
from imageport.sandbox.sample.hives import merge_text, with_parents
from tests.compose.citrix_programs import MSI_PRODUCT, sample_programs

FOLDER = "Windows/ImageportFirstBoot"
PROGRAMS = f"{FOLDER}/programs"
QUIET = EngineOptions(rearm="off")
MCS = EngineOptions(provisioning="mcs")
UNINSTALL = "Microsoft\\Windows\\CurrentVersion\\Uninstall"
TARGET = f"{UNINSTALL}\\{{3E7C05B9-D48A-4F12-A6B0-97C1E52F38D6}}"


ASKS_NOBODY = '/qn /norestart /l*v "%~dp0uninstall-pvs-target.log"'
ALONE = "-NoLogo -NoProfile -NonInteractive"


def plan_of(guest: Any, verb: str) -> list[str]:
    lines = guest.windows.read(f"{FOLDER}/plan.txt", 65536).decode().split("\r\n")
    return [line.split(" ", 1)[1] for line in lines if f" {verb} " in line]


def program(guest: Any, name: str) -> str:
    data: bytes = guest.windows.read(f"{PROGRAMS}/{name}", 65536)
    assert data.count(b"\n") == data.count(b"\r\n")
    return data.decode("ascii").replace("\r\n", "\n")


def note(guest: Any, step: str) -> tuple[bool, str]:
    (found,) = [found for found in guest.notes if found.name == step]
    return found.chosen, found.reason


def edit(guest: Any, text: str) -> None:
    merge_text(guest.hive("SOFTWARE"), with_parents("", text))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("/controllers", '"a.example b.example"'), ""),
        (("/portnumber", "8080", "/enable_hdx_ports"), ""),
        (("/x", "a & b"), "vda_reconfigure[1]: holds & outside of quotes"),
        (('/x "a',), "vda_reconfigure[0]: has a quote that is not closed"),
        (("/x\n",), "vda_reconfigure[0]: holds what is no printable ASCII character"),
        (("x" * 4001,), "vda_reconfigure: are longer than 4000 characters"),
    ],
)
def test_arguments_for_the_agents_setup_are_taken_or_refused(
    arguments: tuple[str, ...], problem: str
) -> None:
    found = [item.reason for item in option_refusals(EngineOptions(vda_reconfigure=arguments))]
    assert found == ([f"{problem}."] if problem else [])


def test_the_agents_setup_runs_silently_with_the_operators_arguments(guest: Any) -> None:
    guest.compose(replace(QUIET, vda_reconfigure=("/controllers", '"a.example"', "/p=5%")))
    assert plan_of(guest, "reconfigure-vda") == ["required reconfigure-vda reconfigure-vda 900"]
    assert program(guest, "reconfigure-vda.cmd").splitlines()[3] == (
        '"%ProgramFiles%\\Citrix\\XenDesktopVdaSetup\\XenDesktopVdaSetup.exe" /reconfigure /quiet '
        '/controllers "a.example" /p=5%%'
    )
    assert note(guest, "reconfigure_vda") == (True, "asked for, with 3 arguments")
    guest.compose(QUIET)
    assert note(guest, "reconfigure_vda") == (False, "not asked for")
    assert plan_of(guest, "reconfigure-vda") == []


def test_a_silent_argument_of_the_operator_is_not_doubled(guest: Any) -> None:
    guest.compose(replace(QUIET, vda_reconfigure=("/QUIET", "/noreboot")))
    assert "/reconfigure /QUIET /noreboot\n" in program(guest, "reconfigure-vda.cmd")


def test_without_the_agents_setup_there_is_nothing_to_run(guest: Any) -> None:
    guest.windows.remove(SETUP)
    options = replace(QUIET, vda_reconfigure=("/portnumber", "80"))
    vda = Installer("vda", "vda", "2407", "0" * 64, "vda.exe")
    with ExitStack() as stack:
        registry = guest.registry(stack)
        (refusal,) = ReconfigureVda().guest_problems(guest.facts(registry, options))
        assert refusal.code == "vda_missing"
        assert "\\Program Files\\Citrix\\XenDesktopVdaSetup" in refusal.reason
        brings = replace(options, installers=(vda,))
        assert ReconfigureVda().guest_problems(guest.facts(registry, brings)) == []


@pytest.mark.parametrize(
    ("options", "chosen", "reason"),
    [
        (EngineOptions(), True, "by default for PVS: Windows"),
        (EngineOptions(rearm="on"), True, "asked for: Windows"),
        (EngineOptions(rearm="off"), False, "not asked for"),
        (EngineOptions(provisioning="mcs"), False, "not asked for"),
        (EngineOptions(provisioning="mcs", rearm="on"), True, "asked for: Windows"),
    ],
)
def test_licences_are_rearmed_for_streaming_unless_told_otherwise(
    guest: Any, options: EngineOptions, chosen: bool, reason: str
) -> None:
    guest.compose(options)
    assert note(guest, "rearm") == (chosen, reason)
    wanted = ["optional rearm-windows rearm-windows 300"] if chosen else []
    assert plan_of(guest, "rearm-windows") == wanted
    assert guest.windows.exists(f"{PROGRAMS}/rearm-windows.ps1") is chosen
    assert plan_of(guest, "rearm-office") == []


def test_another_word_for_rearming_is_refused() -> None:
    (found,) = option_refusals(EngineOptions(rearm="always"))
    assert (found.code, found.reason) == ("bad_option", "rearm: 'always' is not auto, on or off.")


def _install_root(key: str) -> str:
    return (
        f"[\\{key}\\Office\\16.0\\Common\\InstallRoot]\n"
        '"Path"="C:\\\\Program Files\\\\Microsoft Office\\\\Office16\\\\"\n\n'
    )


PLATFORM = (
    "[\\Microsoft\\OfficeSoftwareProtectionPlatform]\n"
    '"Path"="C:\\\\Program Files\\\\Microsoft Office\\\\Office16"\n\n'
)
HOSTILE = (
    "[\\Microsoft\\OfficeSoftwareProtectionPlatform]\n"
    '"Path"="C:\\\\Program Files\\\\Microsoft Office\\\\Office16\'; calc; \'\\\\.."\n\n'
)
CLICK = '[\\Microsoft\\Office\\ClickToRun\\Configuration]\n"Platform"="x64"\n\n'


@pytest.mark.parametrize(
    ("text", "has_program", "is_rearmed"),
    [
        (_install_root("Microsoft"), True, True),
        (_install_root("WOW6432Node\\Microsoft"), True, True),
        (PLATFORM, True, True),
        (_install_root("Microsoft"), False, False),
        (_install_root("Microsoft") + CLICK, True, False),
        (HOSTILE, True, False),
        ("", True, False),
    ],
)
def test_volume_office_is_rearmed_where_its_program_is_found(
    guest: Any, text: str, has_program: bool, is_rearmed: bool
) -> None:
    edit(guest, text)
    if has_program:
        place = guest.windows.root / "Program Files/Microsoft Office/Office16"
        place.mkdir(parents=True)
        (place / "OSPPREARM.EXE").write_bytes(b"MZ")
    guest.compose(EngineOptions())
    wanted = ["optional rearm-office rearm-office 300"] if is_rearmed else []
    assert plan_of(guest, "rearm-office") == wanted
    if is_rearmed:
        assert (
            "$program = 'C:\\Program Files\\Microsoft Office\\Office16\\OSPPREARM.EXE'\n"
        ) in program(guest, "rearm-office.ps1")


@pytest.mark.parametrize("name", ["rearm-windows", "rearm-office"])
def test_the_last_rearm_stays_and_none_is_done_twice(guest: Any, name: str) -> None:
    edit(guest, _install_root("Microsoft"))
    guest.windows.root.joinpath("Program Files/Microsoft Office/Office16").mkdir(parents=True)
    place = "Program Files/Microsoft Office/Office16/OSPPREARM.EXE"
    guest.windows.root.joinpath(place).write_bytes(b"MZ")
    guest.compose(EngineOptions())
    lines = program(guest, f"{name}.ps1").splitlines()
    stop = next(i for i, line in enumerate(lines) if "$left -le 1" in line)
    assert lines[stop + 2].strip() == "exit 0"
    mark = next(i for i, line in enumerate(lines) if line.startswith("Set-Content"))
    act = next(i for i, line in enumerate(lines) if "ReArmWindows" in line or "& $p" in line)
    looks = next(i for i, line in enumerate(lines) if "Test-Path" in line)
    assert looks < stop < mark < act
    assert "3010" not in "\n".join(lines)


def test_leaving_the_domain_is_asked_for_and_only_where_there_is_one(
    new_guest: Callable[..., Any],
) -> None:
    guest = new_guest()
    options = replace(QUIET, leave_domain=True)
    guest.compose(options)
    assert note(guest, "leave_domain") == (True, "asked for; the machine is in corp.example")
    assert plan_of(guest, "leave-domain") == ["required leave-domain leave-domain 300"]
    text = program(guest, "leave-domain.ps1")
    assert "UnjoinDomainOrWorkgroup" in text
    assert "FUnjoinOptions = [uint32]0" in text
    assert "exit 3010" in text
    item = guest.judge(options=options)["domain"]
    assert (item.passed, item.evidence) == (True, "first boot leaves the domain corp.example")
    item = guest.judge(Action.VERIFY, options)["domain"]
    assert (item.passed, item.evidence) == (False, "it is still in the domain corp.example")
    guest.compose(QUIET)
    assert note(guest, "leave_domain") == (False, "not asked for")
    guest.windows.remove("Windows/System32/config/SECURITY")
    guest.compose(options)
    assert note(guest, "leave_domain") == (False, "nothing to do here")
    assert guest.judge(Action.VERIFY, options)["domain"].evidence == "in no domain"
    assert LeaveDomain().problems(options) == []


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            '"UninstallString"="MsiExec.exe /X{3E7C05B9-D48A-4F12-A6B0-97C1E52F38D6}"',
            f'"%SystemRoot%\\System32\\msiexec.exe" /x {MSI_PRODUCT} {ASKS_NOBODY}',
        ),
        (
            '"QuietUninstallString"="\\"C:\\\\x y\\\\setup.exe\\" -del -s"\n"UninstallString"="x"',
            '"C:\\x y\\setup.exe" -del -s',
        ),
        ('"UninstallString"="\\"C:\\\\x y\\\\setup.exe\\" -remove"', ""),
        (
            '"UninstallString"="setup.exe"\n"QuietUninstallString"="setup.exe & del %TEMP%"',
            "",
        ),
        (
            '"QuietUninstallString"="\\"C:\\\\x y\\\\remove.CMD\\" /quiet"\n"UninstallString"="x"',
            "",
        ),
        ('"QuietUninstallString"="C:\\\\x\\\\remove.bat"\n"UninstallString"="x"', ""),
    ],
)
def test_the_target_software_is_uninstalled_by_what_uninstalls_it_silently(
    guest: Any, values: str, line: str
) -> None:
    edit(guest, f"[\\{TARGET}]\n{values}\n")
    options = replace(MCS, recommended=("uninstall_pvs_target",))
    with ExitStack() as stack:
        facts = guest.facts(guest.registry(stack), options)
        refusals = [item.code for item in UninstallPvsTarget().guest_problems(facts)]
    assert refusals == ([] if line else ["no_silent_uninstall"])
    if line:
        guest.compose(options)
        assert program(guest, "uninstall-pvs-target.cmd").splitlines()[3] == line
        assert plan_of(guest, "uninstall-package") == [
            "optional uninstall-package uninstall-pvs-target 900"
        ]


@pytest.mark.parametrize(
    "name",
    [
        "Citrix Provisioning Target Device x64 2402.0.0",
        "Citrix Provisioning Services Target Device x64",
    ],
)
def test_the_target_software_is_known_by_its_old_and_new_name(
    new_guest: Callable[..., Any], name: str
) -> None:
    guest = new_guest(GuestKind(platform=Platform.HYPERV, provisioning=Provisioning.NONE))
    values = f'"DisplayName"="{name}"\n"DisplayVersion"="7.15.45.11"\n'
    edit(guest, f"[\\{TARGET}]\n{values}\n")
    with ExitStack() as stack:
        registry = guest.registry(stack)
        assert guest.facts(registry).inspection.pvs_target_version == "7.15.45.11"
        assert find_product(registry) == (name, "")


def test_an_image_for_streaming_keeps_the_target_software(new_guest: Callable[..., Any]) -> None:
    guest = new_guest()
    guest.compose(replace(QUIET, recommended=("uninstall_pvs_target",)))
    assert note(guest, "uninstall_pvs_target") == (False, "nothing to do here")
    mcs = new_guest(GuestKind(platform=Platform.NONE, provisioning=Provisioning.MCS))
    mcs.compose(replace(MCS, recommended=("uninstall_pvs_target",)))
    assert note(mcs, "uninstall_pvs_target") == (False, "nothing to do here")
    assert "is still installed" in guest.judge(options=MCS)["pvs_target"].evidence


def test_powershell_runs_without_profile_and_answers_with_the_scripts_code(guest: Any) -> None:
    guest.compose(EngineOptions())
    lines = program(guest, "rearm-windows.cmd").splitlines()
    assert lines[-2:] == [
        f'"%SHELL%" {ALONE} -ExecutionPolicy Bypass -File "%~dp0rearm-windows.ps1"',
        "exit /b %ERRORLEVEL%",
    ]
    assert guest.judge()["descriptors"].passed


@pytest.mark.parametrize("name", list(sample_programs()))
def test_programs_keep_the_rules_of_cmd(name: str) -> None:
    data = sample_programs()[name]
    assert data.count(b"\n") == data.count(b"\r\n")
    text = data.decode("ascii").replace("\r\n", "\n")
    assert text.startswith("@echo off\nrem ")
    assert "setlocal EnableExtensions DisableDelayedExpansion\n" in text
    assert not re.search(r"\{[a-z]+\}", text)
    assert not re.search(r"\d>", text)
    code = text.index('set "CODE=%ERRORLEVEL%"')
    before = text[:code].rstrip().splitlines()[-1]
    assert ".exe" in before or before == ":ended"
    assert set(re.findall(r"goto (\w+)", text)) == set(re.findall(r"^:(\w+)", text, re.MULTILINE))
