"""The Azure VM agent: found in the payload, staged, in the plan, and plain text for cmd.exe."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from imageport.compose.contract import Action, EngineOptions
from imageport.compose.first_boot.plan import (
    ADD_DRIVER,
    INSTALL_AGENT,
    REMOVE_SERVICE,
    RESTORE_SERVICE,
    FirstBootPlan,
    parse_plan,
)
from imageport.compose.first_boot.programs import own_programs
from imageport.compose.first_boot.script import render_script
from imageport.compose.first_boot.vm_agent import VmAgentPackage, find_vm_agent
from imageport.sandbox.sample.vm_agent_package import FILE_NAME, write_vm_agent_package

FOLDER = "Windows/ImageportFirstBoot"
SETS = ("ControlSet001", "ControlSet002")


def a_plan(deadline_seconds: int = 1200) -> FirstBootPlan:
    plan = FirstBootPlan(deadline_seconds, 2)
    plan.add(RESTORE_SERVICE, "BrokerAgent", "2")
    plan.add(INSTALL_AGENT, "agent.msi", required=False)
    plan.add(ADD_DRIVER, "ena\\ena.inf")
    plan.add(REMOVE_SERVICE, "ImageportFirstBoot")
    return plan.ordered()


def a_script(deadline_seconds: int = 1200) -> str:
    return render_script(a_plan(deadline_seconds), SETS).decode("ascii")


def a_program() -> str:
    """Return install-vm-agent.cmd."""
    (content,) = own_programs(a_plan()).values()
    return content.decode("ascii")


def test_the_agent_comes_after_the_drivers_and_before_anything_is_put_back() -> None:
    lines = a_plan().render().decode().split("\r\n")[3:]
    assert lines[:3] == [
        "01 required add-driver ena\\ena.inf",
        "02 optional install-vm-agent agent.msi",
        "03 required restore-service BrokerAgent 2",
    ]
    assert parse_plan(a_plan().render()).render() == a_plan().render()


def test_a_script_without_the_agent_says_nothing_of_one() -> None:
    plan = FirstBootPlan()
    plan.add(REMOVE_SERVICE, "ImageportFirstBoot")
    script = render_script(plan.ordered(), SETS).decode("ascii")
    assert "agent" not in script
    assert "msiexec" not in script
    assert own_programs(plan) == {}


def test_the_installer_asks_nobody_restarts_nothing_and_keeps_its_log() -> None:
    (line,) = [line for line in a_program().split("\r\n") if "msiexec.exe" in line]
    assert line == (
        '"%SystemRoot%\\System32\\msiexec.exe" /i "%FOLDER%\\agent\\%~1" /qn /norestart '
        '/l*v "%FOLDER%\\agent.log"'
    )


def test_the_agent_is_waited_for_with_a_bound_below_the_deadline() -> None:
    assert "call :beside install-vm-agent 600 agent.msi\r\n" in a_script()  # ten minutes
    assert "call :beside install-vm-agent 30 agent.msi\r\n" in a_script(60)  # half of 60 s


def test_the_code_of_the_installer_is_kept_before_anything_resets_it() -> None:
    lines = [line for line in a_program().splitlines() if line and not line.startswith("rem ")]
    after = dict(pairwise(lines))
    (msiexec,) = [line for line in lines if "msiexec.exe" in line]
    assert after[msiexec] == 'set "CODE=%ERRORLEVEL%"'
    for code in ("3010", "1641"):  # the shutdown is the restart that they ask for
        assert f'if "%CODE%"=="{code}" set "CODE=0"' in lines
    assert lines[-1] == "exit /b %CODE%"


def test_the_look_alike_is_found_and_the_same_at_every_call(tmp_path: Path) -> None:
    path = write_vm_agent_package(tmp_path / "agent")
    package, refusals = find_vm_agent(tmp_path, f"agent/{FILE_NAME}")
    assert (package, refusals) == (VmAgentPackage(FILE_NAME, path), [])
    first = path.read_bytes()
    assert write_vm_agent_package(tmp_path / "agent").read_bytes() == first


def test_a_tool_that_is_not_ours_takes_the_look_alike_for_a_compound_file(tmp_path: Path) -> None:
    shown = subprocess.run(
        ["file", "--brief", write_vm_agent_package(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "Composite Document File V2" in shown


def _write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(data) and None


def _link_outside(folder: Path) -> None:
    outside = write_vm_agent_package(folder.parent / "outside")
    (folder / "agent.msi").symlink_to(outside)


MSI = bytes.fromhex("d0cf11e0a1b11ae1") + bytes(512)


@pytest.mark.parametrize(
    ("prepare", "name", "reason"),
    [
        (lambda _: None, "agent.msi", "Cannot find 'agent.msi' in the payload"),
        (lambda _: None, "../agent.msi", "needed one inside the payload"),
        (lambda _: None, "/agent.msi", "needed one inside the payload"),
        (_link_outside, "agent.msi", "a link that leads out"),
        (_write("agent.exe", MSI), "agent.exe", "needed an MSI file"),
        (lambda folder: (folder / "a.msi").mkdir(), "a.msi", "needed an MSI file"),
        (_write("a b.msi", MSI), "a b.msi", "its name is not plain"),
        (_write("agent.msi", b"MZ a program"), "agent.msi", "found 4d5a2061"),
        (_write("agent.msi", b""), "agent.msi", "found nothing"),
    ],
)
def test_a_file_that_is_no_installer_is_refused_with_the_reason(
    tmp_path: Path, prepare: Callable[[Path], None], name: str, reason: str
) -> None:
    payload = tmp_path / "payload"
    payload.mkdir()
    prepare(payload)
    package, (found,) = find_vm_agent(payload, name)
    assert package is None
    assert found.code == "vm_agent"
    assert reason in found.reason
    assert found.hint


def test_an_agent_without_a_payload_is_refused_and_no_agent_needs_none(tmp_path: Path) -> None:
    package, (found,) = find_vm_agent(None, "agent.msi")
    assert package is None
    assert "no payload is given" in found.reason
    assert find_vm_agent(None, "") == (None, [])
    assert find_vm_agent(tmp_path, "") == (None, [])


def test_the_agent_is_staged_for_administrators_only_with_its_digest_in_the_report(
    guest: Any,
) -> None:
    path = write_vm_agent_package(guest.payload / "azure")
    options = EngineOptions(cloud="azure", azure_vm_agent=f"azure/{FILE_NAME}")
    changes = [c for c in guest.compose(options) if c.step == "azure_vm_agent"]
    assert {c.tier for c in changes} == {"recommended"}
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert any(digest in c.after for c in changes if c.kind == "file")
    assert guest.windows.read(f"{FOLDER}/agent/{FILE_NAME}", 1 << 20) == path.read_bytes()
    assert guest.judge(options=options)["descriptors"].passed
    plan = guest.windows.read(f"{FOLDER}/plan.txt", 4096).decode()
    assert f"optional install-vm-agent {FILE_NAME}\r\n" in plan


def test_an_agent_that_does_not_install_fails_nothing(guest: Any) -> None:
    write_vm_agent_package(guest.payload / "azure")
    options = EngineOptions(cloud="azure", azure_vm_agent=f"azure/{FILE_NAME}")
    guest.compose(options)
    plan = parse_plan(guest.windows.read(f"{FOLDER}/plan.txt", 4096))
    outcomes = [
        f"step.{step.number:02d}={'failed 1603' if step.verb == INSTALL_AGENT else 'ok'}"
        for step in plan.steps
    ]
    text = "\r\n".join(["state=done", "attempts=1", *outcomes, ""])
    (guest.windows.root / FOLDER / "result.txt").write_bytes(text.encode())
    item = guest.judge(Action.VERIFY, options)["first_boot_done"]
    assert item.passed
    assert "install-vm-agent: failed 1603" in item.evidence
