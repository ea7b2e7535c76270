"""The one list of steps, in the order they run, and how options and guest choose among them."""

from __future__ import annotations

from imageport.compose.contract import EngineOptions, Refusal, StepNote, Tier
from imageport.compose.first_boot.plan import MAX_STEPS, FirstBootPlan
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.boot import all_steps as boot
from imageport.compose.steps.citrix import all_steps as citrix
from imageport.compose.steps.drivers import all_steps as drivers
from imageport.compose.steps.first_boot import all_steps as first_boot
from imageport.compose.steps.own import all_steps as own
from imageport.compose.steps.source import all_steps as source
from imageport.compose.steps.windows import all_steps as windows

STEPS: tuple[Step, ...] = (
    *first_boot.FIRST,  # undoes what an earlier first boot still holds
    *own.BEFORE,
    *boot.STEPS,  # the new way to the disk is open before the old one is closed
    *drivers.STEPS,
    *source.STEPS,
    *windows.STEPS,
    *citrix.STEPS,
    *own.AFTER,
    *first_boot.LAST,
)


def recommended_names(cloud: str = "") -> tuple[str, ...]:
    """Return the names that ``recommended`` may hold, for one cloud or for any."""
    return tuple(
        step.name
        for step in STEPS
        if step.tier is Tier.RECOMMENDED
        and step.name not in step.options  # chosen by an option of its own
        and (not cloud or step.is_for(cloud))
    )


def option_refusals(options: EngineOptions) -> list[Refusal]:
    """Return everything wrong with the options, at once."""
    known = recommended_names(options.cloud)
    found = [
        refusal("unknown_step", f"'{name}' is no recommended step; there are {', '.join(known)}.")
        for name in options.recommended
        if name not in known
    ]
    problems = [problem for step in STEPS for problem in step.problems(options)]
    if options.provisioning not in {"pvs", "mcs"}:
        problems.append(f"provisioning: '{options.provisioning}' is not pvs or mcs")
    return found + [refusal("bad_option", f"{problem}.") for problem in problems]


def step_refusals(facts: Facts) -> list[Refusal]:
    """Return why steps that would run cannot do their work in this guest."""
    chosen = [step for step in STEPS if step.is_chosen(facts.options)]
    return [found for step in chosen for found in step.guest_problems(facts)]


def plan_refusals(plan: FirstBootPlan) -> list[Refusal]:
    """Return why first boot could not do what the steps have planned; nothing is written yet."""
    count = len(plan.steps)
    if count <= MAX_STEPS:
        return []
    reason = f"First boot would have {count} steps to do, it takes {MAX_STEPS}; name fewer."
    return [refusal("bad_option", reason)]


def run_steps(context: Context) -> list[StepNote]:
    """Run what options and guest choose; the changes are in the context's recorder, in order."""
    return [_run(step, context) for step in STEPS]


def _run(step: Step, context: Context) -> StepNote:
    tier, changes = str(step.tier), context.recorder.changes
    if not step.is_chosen(context.options):
        why = "not asked for" if step.is_for(context.options.cloud) else "not for this cloud"
        return StepNote(step.name, tier, step.summary, chosen=False, reason=why)
    why = step.reason(context)
    if not why:
        return StepNote(step.name, tier, step.summary, chosen=False, reason="nothing to do here")
    before = len(changes)
    context.recorder.begin(step.name, step.tier)
    step.run(context)
    made = len(changes) - before
    return StepNote(step.name, tier, step.summary, chosen=True, reason=why, made=made)
