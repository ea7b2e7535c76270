"""Installers of the operator: told from anything else, staged in order, run as plain text."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.contract import (
    Action,
    EngineDisk,
    EngineJob,
    EngineOptions,
    Inspection,
    Installer,
)
from imageport.compose.first_boot.plan import parse_plan
from imageport.compose.installers import (
    InstallerPackage,
    find_installers,
    is_at_least,
    is_comparable,
)
from imageport.compose.refusals import guest_refusals
from imageport.compose.steps.citrix.stage_installers import StageInstallers, command_text
from imageport.compose.steps.order import option_refusals
from imageport.sandbox.guest_player.installers import program_of
from imageport.sandbox.sample.guest_kind import GuestKind, Platform, Provisioning
from imageport.sandbox.sample.installer_package import FILE_NAMES, sha256_of, write_installer

FOLDER = "Windows/ImageportFirstBoot"
SILENT = {
    "pvs_target": ("/S", '/v"/qn /norestart"'),
    "vda": ("/quiet", "/noreboot", "/noresume"),
    "machine_identity": (),
    "mcs_io": (),
}
GOOD = Installer("other", "tools", "1.0", "0" * 64, "tools.exe")


def an_installer(payload: Path, software: str, version: str = "2407.0.0.10") -> Installer:
    """Return the option for an installer that is written into the payload."""
    path = write_installer(payload / "citrix", software, version)
    name = software.replace("_", "-")
    place = f"citrix/{path.name}"
    return Installer(software, name, version, sha256_of(path), place, SILENT[software])


def options_for(guest: Any, *software: str, version: str = "2407.0.0.10") -> EngineOptions:
    found = tuple(an_installer(guest.payload, name, version) for name in software)
    return EngineOptions(installers=found, rearm="off")


def planned(guest: Any) -> list[str]:
    text = guest.windows.read(f"{FOLDER}/plan.txt", 65536)
    return [line for line in text.decode().split("\r\n") if " install-package " in line]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, ""),
        ({"arguments": ("/S", '/v"/qn REBOOT=R & more"', "PCT=50%")}, ""),
        ({"restart_codes": ("3010", "-2147021886", "8")}, ""),
        ({"software": "office"}, "software: 'office' is not pvs_target, vda, machine_identity"),
        ({"name": "a b"}, "name: 'a b' is no plain name"),
        ({"name": "..\\up"}, "name: '..\\up' is no plain name"),
        ({"name": ""}, "name: '' is no plain name"),
        ({"name": "tools."}, "name: 'tools.' is no plain name"),
        ({"name": "t"}, ""),
        ({"version": "2402 LTSR"}, "version: '2402 LTSR' is not one to four numbers with dots"),
        ({"version": "1.2.3.4.5"}, "is not one to four numbers with dots"),
        ({"sha256": "abc"}, "sha256: 'abc' is not 64 hexadecimal digits"),
        ({"timeout_seconds": 0}, "timeout_seconds: 0 is not within 1 to 7200"),
        ({"timeout_seconds": 7201}, "timeout_seconds: 7201 is not within 1 to 7200"),
        ({"restart_codes": ("0",)}, "restart_codes: '0' is no exit code other than 0"),
        ({"restart_codes": ("0x8",)}, "restart_codes: '0x8' is no exit code other than 0"),
        ({"arguments": ("/S & del",)}, "arguments[0]: holds & outside of quotes"),
        ({"arguments": ("/S", "a|b>c")}, "arguments[1]: holds > | outside of quotes"),
        ({"arguments": ("a^b",)}, "arguments[0]: holds ^ outside of quotes"),
        ({"arguments": ('/v"/qn',)}, "arguments[0]: has a quote that is not closed"),
        ({"arguments": ("a\r\nb",)}, "arguments[0]: holds what is no printable ASCII"),
        ({"arguments": ("Grüße",)}, "arguments[0]: holds what is no printable ASCII"),
        ({"arguments": ("x" * 4001,)}, "arguments: are longer than 4000 characters"),
    ],
)
def test_options_are_taken_or_refused_with_the_reason(
    changes: dict[str, Any], problem: str
) -> None:
    refusals = option_refusals(EngineOptions(installers=(replace(GOOD, **changes),)))
    if not problem:
        assert refusals == []
        return
    (found,) = refusals
    assert found.code == "bad_option"
    assert "installers[0]." in found.reason
    assert problem in found.reason


def test_two_of_one_name_or_one_software_are_refused() -> None:
    one = replace(GOOD, software="vda")
    two = replace(one, name="TOOLS")
    said = [item.reason for item in option_refusals(EngineOptions(installers=(one, two)))]
    assert said == [
        "installers: name 'tools' is there twice.",
        "installers: software 'vda' is there twice.",
    ]
    many = tuple(replace(GOOD, name=f"t{number}") for number in range(21))
    assert "21 are more than 20" in option_refusals(EngineOptions(installers=many))[0].reason


def test_a_secret_in_an_argument_is_not_repeated() -> None:
    bad = replace(GOOD, arguments=("PASSWORD=Hunter2&",))
    assert "Hunter2" not in str(option_refusals(EngineOptions(installers=(bad,))))


@pytest.mark.parametrize(
    ("found", "wanted", "expected"),
    [
        ("2402.0.100.78", "2402", True),
        ("2402.0.100.78", "2402.0.100", True),
        ("2402.0.100.78", "2402.0.200", False),
        ("2407.0.0.1", "2402.0.200", True),
        ("7.41.0.62", "2402", False),
        ("", "1", False),
        ("unknown", "1", False),
        ("10.0", "9.9.9", True),
        ("2402", "2402.0", True),
        ("2402", "2402.0.1", False),
        ("2402 LTSR (build 9.9)", "2402.1", False),
        ("9" * 5000, "2402", True),
    ],
)
def test_versions_are_compared_as_numbers_as_far_as_the_wanted_one_goes(
    found: str, wanted: str, expected: bool
) -> None:
    assert is_at_least(found, wanted) is expected


def test_versions_of_any_length_are_told_apart_by_how_they_count() -> None:
    assert is_comparable("9" * 5000, "2402")
    assert is_comparable("7.41", "7.15.5000")
    assert not is_comparable("7.41", "2402.0")
    assert not is_comparable("", "2402")


def test_target_software_for_an_image_that_must_not_run_it_is_refused() -> None:
    installer = replace(GOOD, software="pvs_target")
    options = EngineOptions(provisioning="mcs", installers=(installer,))
    (found,) = option_refusals(options)
    assert found.reason == "installers: software 'pvs_target' is for pvs, not mcs."
    assert option_refusals(replace(options, provisioning="pvs")) == []


def _no_payload(_payload: Path, _installer: Installer) -> tuple[Path | None, Installer]:
    return None, _installer


def _changed(payload: Path, installer: Installer) -> tuple[Path, Installer]:
    path = payload / installer.path
    path.write_bytes(path.read_bytes() + b"!")
    return payload, installer


def _missing(payload: Path, installer: Installer) -> tuple[Path, Installer]:
    return payload, replace(installer, path="citrix/none.exe")


def _outside(payload: Path, installer: Installer) -> tuple[Path, Installer]:
    return payload, replace(installer, path="../secret.exe")


def _folder(payload: Path, installer: Installer) -> tuple[Path, Installer]:
    return payload, replace(installer, path="citrix")


def _rewritten(payload: Path, installer: Installer, name: str, data: bytes) -> Any:
    path = payload / "citrix" / name
    path.write_bytes(data)
    return payload, replace(installer, path=f"citrix/{name}", sha256=sha256_of(path))


def _text(payload: Path, installer: Installer) -> Any:
    return _rewritten(payload, installer, "setup.exe", b"#!/bin/sh")


def _wrong_ending(payload: Path, installer: Installer) -> Any:
    return _rewritten(payload, installer, "setup.msi", b"MZ program")


def _odd_name(payload: Path, installer: Installer) -> Any:
    return _rewritten(payload, installer, "set up%1.exe", b"MZ program")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_no_payload, "no payload is given"),
        (_changed, "found sha256"),
        (_missing, "Cannot find 'citrix/none.exe' in the payload"),
        (_outside, "needed one inside the payload"),
        (_folder, "needed a file with a plain name"),
        (_text, "found 23212f62696e2f73 at offset 0"),
        (_wrong_ending, "needed a name in .exe"),
        (_odd_name, "needed a file with a plain name"),
    ],
)
def test_a_file_that_is_not_the_installer_is_refused(
    tmp_path: Path, change: Callable[..., Any], reason: str
) -> None:
    installer = an_installer(tmp_path, "pvs_target")
    payload, installer = change(tmp_path, installer)
    packages, (refusal,) = find_installers(payload, EngineOptions(installers=(installer,)))
    assert packages == []
    assert refusal.code == "installer"
    assert reason in refusal.reason


def test_programs_and_packages_are_told_by_their_first_bytes(tmp_path: Path) -> None:
    for software, name in FILE_NAMES.items():
        installer = an_installer(tmp_path, software)
        (package,), refusals = find_installers(tmp_path, EngineOptions(installers=(installer,)))
        assert not refusals
        assert package.is_msi is name.endswith(".msi")


def test_installers_run_in_the_order_in_which_they_need_each_other(guest: Any) -> None:
    options = options_for(guest, "pvs_target", "mcs_io", "machine_identity", "vda")
    tool = guest.payload / "tool.exe"
    tool.write_bytes(b"MZ tool")
    other = Installer("other", "runtime", "1", sha256_of(tool), "tool.exe", timeout_seconds=60)
    guest.compose(replace(options, installers=(*options.installers, other)))
    names = [line.split(" ", 1)[1] for line in planned(guest)]
    assert names == [
        "required install-package install-runtime 60",
        *["required install-package install-vda 1200"] * 3,
        "required install-package install-machine-identity 1200",
        "required install-package install-mcs-io 1200",
        "required install-package install-pvs-target 1200",
    ]
    place = f"{FOLDER}/programs/install-pvs-target/PVS_Device_x64.exe"
    assert guest.windows.read(place, 2) == b"MZ"
    verdict = guest.judge(options=options)
    assert verdict["installers"].passed, verdict["installers"].evidence
    assert verdict["pvs_target"].evidence == (
        "first boot installs target device software 2407.0.0.10"
    )
    assert verdict["descriptors"].passed


@pytest.mark.parametrize(
    ("version", "is_staged", "said"),
    [
        ("2407.0.0.10", True, "pvs_target 2407.0.0.10 in place of 2402.0.0.78"),
        ("2402", False, "pvs_target 2402 asked for, 2402.0.0.78 is there already"),
        ("2311.0", False, "pvs_target 2311.0 asked for, 2402.0.0.78 is there already"),
    ],
)
def test_what_is_there_already_is_not_installed_again(
    guest: Any, version: str, is_staged: bool, said: str
) -> None:
    options = options_for(guest, "pvs_target")
    installer = replace(options.installers[0], version=version)
    options = replace(options, installers=(installer,))
    guest.compose(options)
    (note,) = [note for note in guest.notes if note.name == "stage_installers"]
    assert note.reason == said
    assert bool(planned(guest)) is is_staged
    assert guest.windows.exists(f"{FOLDER}/programs/install-pvs-target.cmd") is is_staged
    assert guest.judge(options=options)["pvs_target"].passed


def test_without_the_option_nothing_is_staged(guest: Any) -> None:
    guest.compose(EngineOptions(rearm="off"))
    (note,) = [note for note in guest.notes if note.name == "stage_installers"]
    assert not note.chosen
    assert not planned(guest)


def test_a_missing_target_device_is_no_reason_to_refuse_when_it_is_brought() -> None:
    inspection = Inspection(build="10.0.22621", architecture="x86_64")
    disk = EngineDisk("", "")
    bare = EngineJob(Action.PLAN, disk, EngineOptions())
    assert [r.code for r in guest_refusals(inspection, bare)] == ["pvs_target_missing"]
    brings = EngineOptions(installers=(replace(GOOD, software="pvs_target"),))
    assert guest_refusals(inspection, EngineJob(Action.PLAN, disk, brings)) == []


def test_a_guest_without_room_for_three_times_the_installer_is_refused(guest: Any) -> None:
    options = options_for(guest, "pvs_target")
    with ExitStack() as stack:
        guest.windows.free = 512 * 1024 * 1024
        facts = guest.facts(guest.registry(stack), options)
        (refusal,) = StageInstallers().guest_problems(facts)
        assert refusal.code == "low_free_space"
        assert "the installers need" in refusal.reason
        guest.windows.free += 3 * (guest.payload / options.installers[0].path).stat().st_size
        facts = guest.facts(guest.registry(stack), options)
        assert StageInstallers().guest_problems(facts) == []


def a_package(**changes: Any) -> InstallerPackage:
    installer = replace(GOOD, **changes)
    return InstallerPackage(installer, Path(installer.path), installer.path.endswith(".msi"))


def test_a_program_runs_with_the_operators_arguments_and_its_restart_codes_are_one() -> None:
    text = command_text(a_package(arguments=("/S", '/v"/qn P=5%"'), restart_codes=("8", "8")))
    assert text.splitlines()[3:] == [
        '"%~dp0install-tools\\tools.exe" /S /v"/qn P=5%%"',
        'set "CODE=%ERRORLEVEL%"',
        "echo install-tools ended with %CODE%",
        'if "%CODE%"=="8" exit /b 3010',
        "exit /b %CODE%",
    ]
    assert program_of(text.encode()) == ("install-tools\\tools.exe", '/S /v"/qn P=5%"')


def test_a_package_is_installed_by_msiexec_asking_nobody_and_restarting_nothing() -> None:
    text = command_text(a_package(path="tools.msi", arguments=("ADDLOCAL=All",)))
    assert text.splitlines()[3] == (
        '"%SystemRoot%\\System32\\msiexec.exe" /i "%~dp0install-tools\\tools.msi" /qn /norestart '
        '/l*v "%~dp0install-tools.log" ADDLOCAL=All'
    )


def test_the_agents_installer_goes_on_after_a_restart_and_is_done_once() -> None:
    lines = command_text(a_package(software="vda", name="vda")).splitlines()
    codes = [line for line in lines if line.startswith('if "%CODE%"')]
    assert codes == [
        'if "%CODE%"=="3" goto go_on_later',
        'if "%CODE%"=="3010" goto restart',
        'if "%CODE%"=="1641" goto restart',
        'if "%CODE%"=="8" goto restart',
    ]
    assert 'if exist "%DONE%" exit /b 0' in lines
    assert lines.index('"%GO_ON%"') < lines.index(":first")


def test_the_operator_may_say_that_the_agents_code_3_ends_it() -> None:
    text = command_text(a_package(software="vda", restart_codes=("3",)))
    assert 'if "%CODE%"=="3" goto restart' in text
    assert 'if "%CODE%"=="3" goto go_on_later' not in text


@pytest.mark.parametrize("software", ["other", "vda"])
def test_command_files_keep_the_rules_of_cmd(software: str) -> None:
    text = command_text(a_package(software=software))
    assert "{" not in text
    assert text.isascii()
    assert "DisableDelayedExpansion" in text
    labels = re.findall(r"^:(\w+)", text, re.MULTILINE)
    assert set(re.findall(r"goto (\w+)", text)) == set(labels)
    assert not re.search(r"\d>", text)
    assert text.splitlines()[-1].startswith("exit /b")


def test_composing_twice_with_installers_is_composing_once(new_guest: Callable[..., Any]) -> None:
    guest = new_guest()
    options = options_for(guest, "pvs_target", "machine_identity")
    once = guest.compose(options)
    plan = guest.windows.read(f"{FOLDER}/plan.txt", 65536)
    guest.compose(options)
    assert guest.windows.read(f"{FOLDER}/plan.txt", 65536) == plan
    other = new_guest()
    assert other.compose(options_for(other, "pvs_target", "machine_identity")) == once


def test_an_image_without_the_target_device_gets_it(new_guest: Callable[..., Any]) -> None:
    guest = new_guest(GuestKind(platform=Platform.HYPERV, provisioning=Provisioning.NONE))
    options = options_for(guest, "pvs_target")
    assert not guest.judge(options=EngineOptions())["pvs_target"].passed
    guest.compose(options)
    assert parse_plan(guest.windows.read(f"{FOLDER}/plan.txt", 65536)).steps
    verdict = guest.judge(options=options)
    assert verdict["pvs_target"].passed
    assert verdict["installers"].evidence == "pvs_target 2407.0.0.10 is staged"


def test_an_installer_that_got_lost_fails_the_verdict(guest: Any) -> None:
    options = options_for(guest, "pvs_target")
    guest.compose(options)
    guest.windows.remove(f"{FOLDER}/programs/install-pvs-target/PVS_Device_x64.exe")
    guest.windows.rewrite(
        f"{FOLDER}/plan.txt", b"imageport-firstboot 1\r\ndeadline 600\r\nattempts 1\r\n"
    )
    item = guest.judge(options=options)["installers"]
    assert not item.passed
    assert "install-pvs-target lacks its file" in item.evidence
    assert "the plan of first boot does not run install-pvs-target" in item.evidence
