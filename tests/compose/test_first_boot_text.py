"""``firstboot.cmd`` and ``plan.txt``: what they say, and that cmd.exe cannot stumble over it."""

from __future__ import annotations

import contextlib
import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageport.compose.first_boot.plan import (
    ADD_DRIVER,
    INSTALL_AGENT,
    PROGRAM_VERBS,
    PROGRAMS,
    REMOVE_DRIVER,
    REMOVE_OVERRIDE,
    REMOVE_SERVICE,
    RESET_WINSOCK,
    RESTORE_SERVICE,
    RESTORE_VALUE,
    SET_EMS,
    VERBS,
    WAIT_DEVICES,
    FirstBootPlan,
    parse_plan,
)
from imageport.compose.first_boot.programs import needed_programs, own_programs
from imageport.compose.first_boot.result import read_first_boot
from imageport.compose.first_boot.script import IMAGE_PATH, render_script
from imageport.errors import InputError

SETS = ("ControlSet001", "ControlSet002")


def a_plan() -> FirstBootPlan:
    plan = FirstBootPlan(900, 2)
    plan.add(RESTORE_SERVICE, "BrokerAgent", "2")
    plan.add(WAIT_DEVICES, "60", required=False)
    plan.add(ADD_DRIVER, "ena\\ena.inf")
    plan.add(RESTORE_VALUE, "Services\\Netlogon\\Parameters", "DisablePasswordChange", "absent")
    plan.add(REMOVE_SERVICE, "ImageportFirstBoot")
    return plan.ordered()


def a_script() -> str:
    return render_script(a_plan(), SETS).decode("ascii")


ARGUMENTS = {
    WAIT_DEVICES: ("60",),
    ADD_DRIVER: ("ena\\ena.inf",),
    REMOVE_DRIVER: ("oem7.inf",),
    RESET_WINSOCK: (),
    INSTALL_AGENT: ("agent.msi",),
    RESTORE_SERVICE: ("BrokerAgent", "2"),
    RESTORE_VALUE: ("Services\\Netlogon\\Parameters", "DisablePasswordChange", "dword:0"),
    REMOVE_OVERRIDE: ("vpci",),
    SET_EMS: ("on", "keep", "ems:b2721d73-1db4-4c62-bf78-c548a880142d"),
    REMOVE_SERVICE: ("ImageportFirstBoot",),
}


def every_verb() -> FirstBootPlan:
    plan = a_plan()
    for verb in VERBS:
        plan.add(verb, *ARGUMENTS.get(verb, (verb, "600")))
    plan.add(SET_EMS, "off", "2")
    return plan.ordered()


def everything() -> str:
    return render_script(every_verb(), SETS).decode("ascii")


def test_the_plan_installs_first_and_removes_itself_last() -> None:
    assert a_plan().render().decode().split("\r\n") == [
        "imageport-firstboot 1",
        "deadline 900",
        "attempts 2",
        "01 optional wait-devices 60",
        "02 required add-driver ena\\ena.inf",
        "03 required restore-service BrokerAgent 2",
        "04 required restore-value Services\\Netlogon\\Parameters DisablePasswordChange absent",
        "05 required remove-service ImageportFirstBoot",
        "",
    ]


def test_a_plan_reads_back_as_it_was() -> None:
    assert parse_plan(a_plan().render()).render() == a_plan().render()


@given(st.binary(max_size=400))
def test_any_bytes_are_a_plan_or_an_input_error(data: bytes) -> None:
    with contextlib.suppress(InputError):
        parse_plan(data)


@pytest.mark.parametrize(
    "line",
    [
        "01 required restore-service BrokerAgent",
        "01 required restore-service BrokerAgent 2 3",
        "01 required restore-value Services\\X Start",
        "01 required install-package pvs",
        "01 required set-ems on",
        "01 required reset-winsock now",
        "01 required remove-service",
        "01 perhaps remove-service X",
        "01 required format-disk 0",
    ],
)
def test_a_step_with_other_arguments_than_its_verb_takes_is_no_plan(line: str) -> None:
    head = "imageport-firstboot 1\r\ndeadline 900\r\nattempts 2\r\n"
    with pytest.raises(InputError, match="Bad first-boot plan: found line '01"):
        parse_plan(f"{head}{line}\r\n".encode())


@pytest.mark.parametrize("number", ["", "-1", "9" * 5000, "\u00b2"])
def test_a_deadline_that_is_no_number_is_no_plan(number: str) -> None:
    with pytest.raises(InputError, match="needed 'deadline NUMBER'"):
        parse_plan(f"imageport-firstboot 1\r\ndeadline {number}\r\nattempts 2\r\n".encode())


@pytest.mark.parametrize("name", ["a b", "a&b", "%PATH%", 'a"b', "a|b", "a^b", "a>b", "a!b", ""])
def test_a_name_that_a_shell_would_read_never_gets_into_a_plan(name: str) -> None:
    with pytest.raises(InputError, match="first-boot argument"):
        FirstBootPlan().add(ADD_DRIVER, name)


def test_the_script_is_ascii_with_carriage_returns() -> None:
    data = render_script(every_verb(), SETS)
    assert data.isascii()
    assert data.count(b"\n") == data.count(b"\r\n")
    assert data.endswith(b"\r\n")


def test_delayed_expansion_is_off_and_never_used() -> None:
    script = everything()
    assert "DisableDelayedExpansion" in script
    assert not re.search(r"!\w+!", script)


def test_no_block_reads_a_variable_that_it_sets() -> None:
    # cmd expands %NAME% in a parenthesised block before the block runs; so there are no blocks.
    code = [line for line in everything().splitlines() if not line.startswith("rem ")]
    assert not [line for line in code if line.rstrip().endswith("(") or line.startswith(")")]


def test_no_digit_stands_before_a_redirection() -> None:
    # "echo 1>file" redirects handle 1 and writes an empty line.
    for line in everything().splitlines():
        for match in re.finditer(r"(\S?)(>>?)", line):
            before = match[1]
            allowed = {"", ">", " "}
            assert before in allowed or line[match.start() :].startswith(("2>&1", "2>nul"))


def test_no_result_is_read_after_set_has_reset_it() -> None:
    # In a .cmd file, unlike a .bat, a successful "set" makes ERRORLEVEL 0.
    lines = [line for line in everything().splitlines() if line and not line.startswith("rem ")]
    for before, line in pairwise(lines):
        if "errorlevel" in line.lower():
            assert not before.lower().startswith("set "), line


def labels_and_uses(script: str) -> tuple[list[str], set[str]]:
    labels = re.findall(r"^:(\w+)", script, re.MULTILINE)
    used = {*re.findall(r"goto (\w+)", script), *re.findall(r"call :(\w+)", script)}
    return labels, used | set(re.findall(r'"NEXT=(\w+)"', script)) - {"on"}


def test_every_label_that_is_used_exists_once() -> None:
    labels, used = labels_and_uses(everything())
    assert len(labels) == len(set(labels))
    assert used <= set(labels)
    assert set(labels) <= used, "a label that nobody reaches"


def test_every_subroutine_ends_before_the_next_begins() -> None:
    body = a_script().replace("\r\n", "\n")
    for label in ("run", "once_more", "stop", "idle", "watch", "begin", "end", "beside", "program",
                  "wait_devices", "add_driver", "remove_driver", "reset_winsock", "set_dword",
                  "delete_value", "delete_key", "set_ems", "set_ems_switch"):  # fmt: skip
        before = body.split(f"\n:{label}\n")[0].rstrip().splitlines()[-1]
        assert before.startswith(("exit /b", "goto ")), f"runs into :{label}"


def test_each_control_set_is_restored_and_cleared_as_one_step() -> None:
    script = a_script()
    for number, call in (
        ("03 required restore-service", "set_dword {0}\\Services\\BrokerAgent Start 2"),
        (
            "04 required restore-value",
            "delete_value {0}\\Services\\Netlogon\\Parameters DisablePasswordChange",
        ),
        ("05 required remove-service", "delete_key {0}\\Services\\ImageportFirstBoot"),
    ):
        lines = [f"call :begin {number}", *(f"call :{call.format(name)}" for name in SETS)]
        assert "\r\n".join([*lines, "call :end", ""]) in script


def test_overrides_of_the_one_boot_go_at_its_end_and_the_drivers_stay() -> None:
    plan = FirstBootPlan(900, 2)
    plan.add(REMOVE_SERVICE, "ImageportFirstBoot")
    plan.add(REMOVE_OVERRIDE, "vpci")
    plan.add(RESTORE_SERVICE, "BrokerAgent", "2")
    assert [step.verb for step in plan.ordered().steps] == [
        RESTORE_SERVICE, REMOVE_OVERRIDE, REMOVE_SERVICE,
    ]  # fmt: skip
    script = render_script(plan.ordered(), SETS).decode("ascii")
    _, _, restoring = script.partition("\r\n:restore\r\n")
    for name in SETS:
        assert f"call :delete_key {name}\\Services\\vpci\\StartOverride\r\n" in restoring
    assert "Services\\vpci\r\n" not in script


def test_only_the_control_sets_in_which_it_was_held_are_restored() -> None:
    plan = FirstBootPlan(900, 2)
    plan.add(RESTORE_SERVICE, "BrokerAgent", "2", control_sets=("ControlSet001",))
    script = render_script(plan.ordered(), SETS).decode("ascii")
    assert "ControlSet001\\Services\\BrokerAgent" in script
    assert "ControlSet002\\Services\\BrokerAgent" not in script


def reached(script: str, label: str) -> str:
    """Return the text that runs from a label on, along plain ``goto`` and falling through."""
    body = script.replace("\r\n", "\n")
    text, seen = "", set()
    while label not in seen:
        seen.add(label)
        part = body.split(f"\n:{label}\n", 1)[1]
        for line in part.splitlines():
            text += line + "\n"
            if line.startswith(":"):
                seen.add(line[1:])
            if line.startswith("exit /b"):
                return text
            if line.startswith("goto "):
                label = line.removeprefix("goto ")
                break
    return text


@pytest.mark.parametrize("label", ["restore", "give_up", "no_restart_left", "once_more", "watch"])
def test_every_way_to_the_end_puts_back_what_was_held(label: str) -> None:
    assert "Services\\BrokerAgent Start 2" in (way := reached(a_script(), label))
    assert "DisablePasswordChange" in way
    assert "Services\\ImageportFirstBoot" in way
    assert 'move "%RESULT%"' in way
    assert "shutdown.exe" in way
    for end in ('if "%FAILED%"=="0" goto restore', "if %ATTEMPTS% GEQ %MAX_ATTEMPTS% goto restore"):
        assert end in a_script()


def test_the_watch_writes_no_file_that_a_hanging_step_holds_open() -> None:
    way = reached(a_script(), "watch")
    switch = way.index('set "LOG=%HERE%watch.txt"')
    assert "%LOG%" not in way[:switch]
    for name in ("STEPS", "DONE", "RESULT"):
        assert f'"%{name}%"' not in way[: way.index(f'set "{name}=%HERE%watch-')]
    assert '>>"%HERE%' not in way


def test_marks_of_an_earlier_start_are_gone_before_anything_looks_at_them() -> None:
    head, _, _ = everything().partition("\r\nstart ")
    for name in ("restart.txt", "leaving.txt", "taken.txt"):
        assert f'"%HERE%{name}"' in head.splitlines()[-1]


def test_nothing_waits_by_ping_alone() -> None:
    lines = [line for line in everything().splitlines() if "ping.exe" in line]
    assert lines == ['"%SYS%\\ping.exe" -n %ECHOES% 127.0.0.1 >nul 2>&1']


def test_attempts_restarts_and_deadline_bound_the_script() -> None:
    script = a_script()
    for name, bound in (("MAX_ATTEMPTS", 2), ("MAX_RESTARTS", 8), ("DEADLINE", 900)):
        assert f'set "{name}={bound}"\r\n' in script
    assert "if %ATTEMPTS% GTR %MAX_ATTEMPTS% goto give_up" in script
    assert "if %RESTARTS% GTR %MAX_RESTARTS% goto no_restart_left" in script
    assert "if %ELAPSED% LSS %DEADLINE% goto watch_round" in script
    assert "@" not in script.replace("@echo off", "")


def test_a_step_that_is_done_is_passed_over_after_a_restart_waiting_is_not() -> None:
    script = a_script().replace("\r\n", "\n")
    assert (
        "if defined DONE_02 goto after_02\n"
        "call :begin 02 required add-driver\n"
        "call :add_driver ena\\ena.inf\n"
        "call :end\n"
        'if not "%NEXT%"=="on" goto %NEXT%\n'
        ":after_02\n"
    ) in script
    assert "DONE_01" not in script


def test_a_program_runs_beside_with_its_seconds() -> None:
    script = everything()
    for verb in PROGRAM_VERBS:
        assert f"call :beside {verb} 600\r\n" in script
    assert "call :beside install-vm-agent 450 agent.msi\r\n" in script  # half of 900 s
    assert needed_programs(every_verb()) == sorted(
        [f"{PROGRAMS}/{verb}.cmd" for verb in (*PROGRAM_VERBS, INSTALL_AGENT, WAIT_DEVICES)]
        + [f"{PROGRAMS}/wait-devices.ps1"]
    )


def test_emergency_services_are_set_for_all_or_for_one_switch() -> None:
    script = everything()
    switch = "b2721d73-1db4-4c62-bf78-c548a880142d"
    assert f"call :set_ems_switch on ems {switch}\r\n" in script
    assert "call :set_ems off 2\r\n" in script
    assert '"%SYS%\\bcdedit.exe" /set {%~3} %~2 %~1' in script


def test_the_engines_own_programs_are_plain_text_for_windows() -> None:
    programs = own_programs(every_verb())
    assert sorted(programs) == [
        f"{PROGRAMS}/{name}"
        for name in ("install-vm-agent.cmd", "wait-devices.cmd", "wait-devices.ps1")
    ]
    for content in programs.values():
        assert content.isascii()
        assert content.count(b"\n") == content.count(b"\r\n")
    waits = programs[f"{PROGRAMS}/wait-devices.ps1"].decode()
    assert '[DllImport("cfgmgr32.dll", ExactSpelling = true)]' in waits
    assert "CMP_WaitNoPendingInstallEvents([uint32] ($Seconds * 1000))" in waits
    assert waits.rstrip().endswith("exit $code")  # never PowerShell's own 1, which says nothing
    shell = programs[f"{PROGRAMS}/wait-devices.cmd"].decode()
    assert "-NoProfile -NonInteractive -ExecutionPolicy Bypass -File" in shell


def test_a_plan_without_such_steps_brings_no_programs() -> None:
    plan = FirstBootPlan()
    plan.add(REMOVE_SERVICE, "ImageportFirstBoot")
    assert own_programs(plan) == {}
    assert needed_programs(plan) == []


def test_the_end_is_said_on_the_serial_port_and_is_a_shutdown() -> None:
    script = a_script()
    assert ">COM1 echo imageport-firstboot: done" in script
    assert ">COM1 echo imageport-firstboot: failed" in script
    assert 'set "HOW=/s"' in script
    assert 'shutdown.exe" %HOW% /f /t 0' in script


def test_programs_are_named_by_their_full_path() -> None:
    for line in everything().splitlines():
        if ".exe" in line:
            assert '"%SYS%\\' in line, line


def test_the_service_runs_the_script_by_cmd_itself() -> None:
    assert IMAGE_PATH == (
        "%SystemRoot%\\System32\\cmd.exe /d /c %SystemRoot%\\ImageportFirstBoot\\firstboot.cmd"
    )


def put(guest: Any, name: str, text: str) -> None:
    folder = guest.windows.root / "Windows/ImageportFirstBoot"
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(text.encode())


def test_a_result_is_read_with_its_steps(guest: Any) -> None:
    put(
        guest,
        "result.txt",
        "state=done\r\nattempts=1\r\nrestarts=2\r\nstep.01=ok\r\nstep.02=failed 2\r\n",
    )
    put(guest, "log.txt", "one line\r\n")
    result = read_first_boot(guest.windows)
    assert (result.state, result.attempts, result.restarts) == ("done", "1", "2")
    assert result.steps == {"01": "ok", "02": "failed 2"}
    assert "one line" in result.log_tail


def test_one_failure_among_a_steps_control_sets_is_the_steps_failure(guest: Any) -> None:
    put(guest, "result.txt", "state=failed\r\nstep.03=failed 1\r\nstep.03=ok\r\n")
    assert read_first_boot(guest.windows).steps == {"03": "failed 1"}


def test_a_boot_that_broke_off_is_unfinished_and_none_is_not_run(guest: Any) -> None:
    assert read_first_boot(guest.windows).state == "not-run"
    put(guest, "attempts.txt", "1\r\n")
    assert read_first_boot(guest.windows).state == "unfinished"


def test_what_a_guest_writes_cannot_grow_the_report(guest: Any) -> None:
    put(guest, "result.txt", "state=done\r\nstep.99=" + "x" * 100_000 + "\r\nother=1\r\n")
    put(guest, "log.txt", "y" * 1_000_000)
    result = read_first_boot(guest.windows)
    assert result.steps == {}
    assert len(result.log_tail) <= 4000
