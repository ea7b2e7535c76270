"""Preparing twice is preparing once; what was held comes back, and what is not ours is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imageport.compose.contract import Action, EngineOptions
from imageport.compose.first_boot.plan import (
    ADD_DRIVER,
    FOLDER,
    PLAN_FILE,
    REMOVE_SERVICE,
    RESTORE_SERVICE,
    SERVICE,
    FirstBootPlan,
    Held,
    parse_plan,
)
from imageport.compose.first_boot.undo import (
    UNDO_FILE,
    EarlierBoot,
    earlier_boot,
    parse_undo,
    render_undo,
)
from imageport.compose.hives.registry_value import Value
from imageport.compose.steps.first_boot.add_first_boot import MakeFirstBootFolder
from imageport.compose.steps.order import option_refusals, recommended_names
from imageport.errors import EngineFailed, InputError
from imageport.sandbox.sample.hives import merge_text

HIVES = ("SYSTEM", "SOFTWARE", "DRIVERS")
SETS = ("ControlSet001", "ControlSet002")


def exported(hive: Path) -> str:
    """Return a hive as text by libhivex' own program: what it says, not how it lies there."""
    return subprocess.run(
        ["hivexregedit", "--export", hive, "\\"], capture_output=True, text=True, check=True
    ).stdout


def state(guest: Any) -> dict[str, str]:
    """Return everything that a guest is: its hives as text, all other files by their digest."""
    hives = {guest.hive(name) for name in HIVES} | {guest.esp.root / "EFI/Microsoft/Boot/BCD"}
    found = {str(hive): exported(hive) for hive in hives}
    for root in (guest.windows.root, guest.esp.root):
        for path in root.rglob("*"):
            if path not in hives:
                name = str(path)
                is_file = path.is_file()
                found[name] = hashlib.sha256(path.read_bytes()).hexdigest() if is_file else "folder"
    return found


@st.composite
def chosen_options(draw: st.DrawFn) -> EngineOptions:
    cloud = draw(st.sampled_from(["aws", "azure", "gcp"]))
    provisioning = draw(st.sampled_from(["pvs", "mcs"]))
    names = recommended_names(cloud)
    return EngineOptions(
        cloud=cloud,
        provisioning=provisioning,
        drivers=("ena",) if draw(st.booleans()) else (),
        list_of_ddcs=("ddc.new.example",) if draw(st.booleans()) else (),
        recommended=tuple(name for name in names if draw(st.booleans())),
        rearm=draw(st.sampled_from(["auto", "on", "off"])),
        serial_console=draw(st.sampled_from(["keep", "on", "off"])),
        leave_domain=draw(st.booleans()),
        first_boot_attempts=draw(st.integers(1, 10)),
    )


@settings(
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(options=chosen_options())
def test_composing_twice_is_composing_once(
    new_guest: Callable[[], Any], options: EngineOptions
) -> None:
    assert option_refusals(options) == []
    guest = new_guest()
    guest.compose(options)
    once = state(guest)
    guest.compose(options)
    assert state(guest) == once


def test_composing_again_with_other_options_is_as_if_only_these_had_been(
    new_guest: Callable[[], Any],
) -> None:
    one, other = new_guest(), new_guest()
    one.compose(EngineOptions(serial_console="off", first_boot_attempts=7))
    one.compose()
    other.compose()
    plans = [(g.windows.root / FOLDER / "plan.txt").read_bytes() for g in (one, other)]
    assert plans[0] == plans[1]


def test_what_is_held_is_noted_exactly_by_control_set_and_value(guest: Any) -> None:
    guest.compose()
    held = parse_undo((guest.windows.root / UNDO_FILE).read_bytes())
    for name in SETS:
        key = f"{name}\\Services\\BrokerAgent"
        assert Held("SYSTEM", key, "Start", Value.dword(2)) in held
        password = f"{name}\\Services\\Netlogon\\Parameters"
        assert Held("SYSTEM", password, "DisablePasswordChange", Value.dword(0)) in held
    assert len(held) == len(set(held))


def test_a_finished_first_boot_makes_room_for_the_next(guest: Any) -> None:
    guest.compose()
    folder = guest.windows.root / FOLDER
    (folder / "result.txt").write_bytes(b"state=done\r\nattempts=1\r\n")
    (folder / "log.txt").write_bytes(b"x\r\n")
    assert earlier_boot(guest.windows) is EarlierBoot.FINISHED
    changes = guest.compose()
    removed = [change for change in changes if change.after == "" and change.kind == "folder"]
    assert [change.path for change in removed] == ["\\Windows\\ImageportFirstBoot"]
    assert not (folder / "result.txt").exists()
    # Nothing is put back: the boot has done that, and somebody may have changed it since.
    plan = parse_plan((folder / "plan.txt").read_bytes())
    assert "BrokerAgent" not in str(plan.steps)


@pytest.mark.parametrize(
    ("outcomes", "earlier"),
    [
        (("failed 2", "ok", "ok"), EarlierBoot.FINISHED),
        (("failed 2", "failed 1", "ok"), EarlierBoot.UNKNOWN),  # the broker agent is held still
        (("failed 2", "ok"), EarlierBoot.UNKNOWN),
    ],
)
def test_a_first_boot_that_failed_is_over_once_it_has_put_all_back(
    guest: Any, outcomes: tuple[str, ...], earlier: EarlierBoot
) -> None:
    plan = FirstBootPlan()
    plan.add(ADD_DRIVER, "ena\\ena.inf")
    plan.add(RESTORE_SERVICE, "BrokerAgent", "2")
    plan.add(REMOVE_SERVICE, SERVICE)
    folder = guest.windows.root / FOLDER
    folder.mkdir()
    lines = [f"step.{number:02d}={text}" for number, text in enumerate(outcomes, 1)]
    (folder / "result.txt").write_text("\n".join(["state=failed", *lines]))
    assert earlier_boot(guest.windows) is EarlierBoot.UNKNOWN  # nobody knows what it had to do
    (folder / "plan.txt").write_bytes(plan.render())
    assert earlier_boot(guest.windows) is earlier


def _foreign(folder: Path) -> None:
    (folder / "notes.txt").write_bytes(b"somebody's\r\n")


def _broken_off(folder: Path) -> None:
    (folder / "undo.json").write_bytes(render_undo(()))
    (folder / "attempts.txt").write_bytes(b"1\r\n")


def _bad_undo(folder: Path) -> None:
    (folder / "undo.json").write_bytes(b'{"schema": 2}')


def _huge_undo(folder: Path) -> None:
    (folder / "undo.json").write_bytes(render_undo(()) + b" " * 300_000)


@pytest.mark.parametrize("make", [_foreign, _broken_off, _bad_undo, _huge_undo])
def test_a_folder_of_unknown_making_is_refused(guest: Any, make: Callable[[Path], None]) -> None:
    folder = guest.windows.root / FOLDER
    folder.mkdir()
    make(folder)
    assert earlier_boot(guest.windows) is EarlierBoot.UNKNOWN
    with ExitStack() as stack:
        facts = guest.facts(guest.registry(stack))
        assert [item.code for item in MakeFirstBootFolder().guest_problems(facts)] == [
            "already_prepared"
        ]
    with pytest.raises(EngineFailed, match="exists already"):
        guest.compose()


def test_an_image_without_the_folder_is_not_refused(guest: Any) -> None:
    with ExitStack() as stack:
        facts = guest.facts(guest.registry(stack))
        assert MakeFirstBootFolder().guest_problems(facts) == []


@given(
    st.lists(
        st.builds(
            Held,
            st.sampled_from(["SYSTEM", "SOFTWARE", "BCD"]),
            st.text(min_size=1, max_size=20),
            st.text(max_size=20),
            st.none() | st.builds(Value, st.integers(0, 11), st.binary(max_size=40)),
        ),
        max_size=5,
    )
)
def test_an_undo_file_reads_back_as_it_was(held: list[Held]) -> None:
    assert parse_undo(render_undo(held)) == tuple(held)


@given(st.binary(max_size=300))
def test_any_bytes_are_an_undo_file_or_an_input_error(data: bytes) -> None:
    with suppress(InputError):
        parse_undo(data)


GOOD = {"hive": "SYSTEM", "key": "Select", "name": "Default", "before": None}


@pytest.mark.parametrize(
    "value",
    [
        {**GOOD, "hive": "SAM"},
        {**GOOD, "key": ""},
        {**GOOD, "key": 1},
        {**GOOD, "name": None},
        {**GOOD, "before": {"kind": "4", "data": "00"}},
        {**GOOD, "before": {"kind": 4, "data": "0g"}},
        {**GOOD, "before": {"kind": 4}},
        {**GOOD, "before": {"kind": -1, "data": "00"}},
        {**GOOD, "before": {"kind": 1 << 32, "data": "00"}},
        {"hive": "SYSTEM"},
        "SYSTEM",
        None,
    ],
)
def test_an_undo_value_of_another_shape_is_refused(value: object) -> None:
    data = json.dumps({"schema": 1, "held": [value]}).encode()
    with pytest.raises(InputError, match="Bad undo file"):
        parse_undo(data)
    parse_undo(json.dumps({"schema": 1, "held": [GOOD]}).encode())
    with pytest.raises(InputError, match="at most 500"):
        parse_undo(json.dumps({"schema": 1, "held": [GOOD] * 501}).encode())


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ("undo.json", "undo.json is missing"),
        ("programs/wait-devices.cmd", "programs/wait-devices.cmd is missing"),
        ("programs/wait-devices.ps1", "programs/wait-devices.ps1 is missing"),
        ("firstboot.cmd", "firstboot.cmd is missing"),
    ],
)
def test_the_verdict_misses_what_first_boot_needs(guest: Any, gone: str, said: str) -> None:
    guest.compose()
    assert guest.judge()["first_boot_ready"].passed
    (guest.windows.root / FOLDER / gone).unlink()
    item = guest.judge()["first_boot_ready"]
    assert not item.passed
    assert said in item.evidence


def test_the_verdict_tells_why_first_boot_failed_and_how_often_it_restarted(guest: Any) -> None:
    guest.compose()
    result = guest.windows.root / FOLDER / "result.txt"
    result.write_bytes(
        b"state=failed\r\nreason=deadline in step 01 wait-devices\r\nattempts=1\r\nrestarts=2\r\n"
    )
    item = guest.judge(Action.VERIFY)["first_boot_done"]
    assert "first boot is failed (deadline in step 01 wait-devices)" in item.evidence
    result.write_bytes(b"state=done\r\nattempts=1\r\nrestarts=2\r\n")
    assert "no_trace" not in guest.judge(Action.VERIFY)


def test_a_boot_that_failed_tells_each_step_once_and_which_optional_ones_failed(guest: Any) -> None:
    guest.compose()
    steps = parse_plan((guest.windows.root / PLAN_FILE).read_bytes()).steps
    assert not steps[0].required
    lines = [f"step.{step.number:02d}={'ok' if step.number > 2 else 'failed 7'}" for step in steps]
    result = guest.windows.root / FOLDER / "result.txt"
    result.write_text("\n".join(["state=failed", "reason=step-02", *lines]))
    item = guest.judge(Action.VERIFY)["first_boot_done"]
    assert item.evidence == (
        f"first boot is failed (step-02); optional step 01 {steps[0].verb}: failed 7; "
        f"step 02 {steps[1].verb}: failed 7"
    )


def put_back(guest: Any, held: list[Held]) -> None:
    text = ""
    for item in held:
        assert item.before is not None
        text += f'[\\{item.key}]\n"{item.name}"=dword:{item.before.as_number():08x}\n\n'
    merge_text(guest.hive("SYSTEM"), text)


def test_what_is_held_still_in_another_control_set_is_no_restored_service(guest: Any) -> None:
    guest.compose()
    undo = parse_undo((guest.windows.root / UNDO_FILE).read_bytes())
    held = [item for item in undo if item.hive == "SYSTEM"]
    assert {item.key.partition("\\")[0] for item in held} == set(SETS)
    put_back(guest, [item for item in held if item.key.startswith(SETS[0])])
    item = guest.judge(Action.VERIFY)["services_restored"]
    assert not item.passed
    assert f"{SETS[1]}\\Services\\BrokerAgent Start is not REG_DWORD 2 again" in item.evidence
    put_back(guest, held)
    assert guest.judge(Action.VERIFY)["services_restored"].passed
