"""A first boot of more steps than its plan takes is refused before anything is written."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from imageport.compose import boot_store as bcd
from imageport.compose import engine_run
from imageport.compose.boot_store import Element
from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineOptions, EngineReport
from imageport.compose.drivers.driver_packages import find_packages
from imageport.compose.first_boot.plan import (
    ADD_DRIVER,
    MAX_STEPS,
    WAIT_DEVICES,
    FirstBootPlan,
    parse_plan,
)
from imageport.compose.guest import Guest
from imageport.compose.inspection import inspect
from imageport.compose.steps.order import plan_refusals
from imageport.compose.survey import Survey
from imageport.errors import InputError
from imageport.sandbox.sample.hives import merge_text

OPTIONS = EngineOptions(rearm="off")


def plan_of(count: int) -> FirstBootPlan:
    plan = FirstBootPlan()
    for number in range(count - 1):
        plan.add(ADD_DRIVER, f"package{number}\\driver.inf")
    plan.add(WAIT_DEVICES, "60")
    return plan.ordered()


@pytest.mark.parametrize("count", [1, MAX_STEPS, MAX_STEPS + 1])
def test_a_plan_takes_so_many_steps_and_no_more(count: int) -> None:
    text = plan_of(count).render()
    codes = [one.code for one in plan_refusals(plan_of(count))]
    if count <= MAX_STEPS:
        assert codes == []
        assert len(parse_plan(text).steps) == count
    else:
        assert codes == ["bad_option"]
        with pytest.raises(InputError, match=f"found {count} steps, needed {MAX_STEPS}"):
            parse_plan(text)


def composed(guest: Any, scratch: Path) -> EngineReport:
    """Compose as the engine does; the machine has no handle, so nothing could be written."""
    job = EngineJob(Action.COMPOSE, EngineDisk("", guest.table.disk_guid), OPTIONS)
    packages = find_packages(guest.payload, (), OPTIONS.cloud)[0]
    found = guest.payload, tuple(packages), None, (), scratch
    work = engine_run._Work(job, TARGETS[OPTIONS.cloud], *found, list[str]().append)
    seen = Survey([], guest.table.partitions[-1], guest.windows, guest.table.esp, guest.esp)
    with ExitStack() as stack:
        registry = guest.registry(stack, writable=True)
        inspection = inspect(registry, guest.windows, guest.table)
        machine = Guest(None, guest.table, writable=True)
        return engine_run._compose(machine, work, seen, registry, inspection)


def test_too_many_switches_to_put_back_are_a_refusal_with_the_count(
    guest: Any, tmp_path: Path
) -> None:
    store = guest.esp.root / "EFI/Microsoft/Boot/BCD"
    text = []
    for number in range(MAX_STEPS):
        name = f"{{00000000-0000-4000-8000-{number:012x}}}"
        place = bcd.element_path(name, Element.EMS)
        parents = [f"Objects\\{name}", f"Objects\\{name}\\Elements"]
        text += [*(f"[\\{key}]\n" for key in parents), f'[\\{place}]\n"Element"=hex:01\n']
    merge_text(store, "\n".join(text))
    before = store.read_bytes()
    report = composed(guest, tmp_path)
    assert not report.ok
    (refused,) = report.refusals
    assert refused.code == "bad_option"
    assert refused.reason.startswith("First boot would have 1")
    assert report.changes == ()
    assert store.read_bytes() == before
