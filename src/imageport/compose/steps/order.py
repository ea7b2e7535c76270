"""The one list of steps, in the order they run, and how options choose among them."""

from __future__ import annotations

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import Change, EngineOptions, Refusal, Tier
from imageport.compose.hives.registry import Registry
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Step
from imageport.compose.steps.boot.bring_disks_online import BringDisksOnline
from imageport.compose.steps.boot.enable_boot_drivers import EnableBootDrivers
from imageport.compose.steps.boot.enable_dvd_drive import EnableDvdDrive
from imageport.compose.steps.citrix.point_vda_at_controllers import PointVdaAtControllers
from imageport.compose.steps.drivers.stage_drivers import StageDrivers
from imageport.compose.steps.first_boot.add_first_boot import AddFirstBoot, MakeFirstBootFolder
from imageport.compose.steps.first_boot.hold_services import HoldServices
from imageport.compose.steps.source.disable_vmware_services import DisableVmwareServices
from imageport.compose.steps.windows.keep_time import ReadClockAsUtc, UseCloudTimeServer
from imageport.compose.steps.windows.remove_winhttp_proxy import RemoveWinhttpProxy
from imageport.compose.steps.windows.stage_vm_agent import StageVmAgent
from imageport.compose.steps.windows.switch_off_hibernation import SwitchOffHibernation
from imageport.compose.steps.windows.use_dhcp import UseDhcp
from imageport.compose.steps.windows.use_high_performance import UseHighPerformance
from imageport.compose.steps.windows.write_crash_dumps import WriteCrashDumps

STEPS: tuple[Step, ...] = (
    DisableVmwareServices(),  # first: nothing of the source may run beside what comes after
    EnableBootDrivers(),
    BringDisksOnline(),
    EnableDvdDrive(),
    ReadClockAsUtc(),
    UseCloudTimeServer(),
    UseDhcp(),
    RemoveWinhttpProxy(),
    SwitchOffHibernation(),
    UseHighPerformance(),
    WriteCrashDumps(),
    PointVdaAtControllers(),
    MakeFirstBootFolder(),
    StageDrivers(),
    StageVmAgent(),
    HoldServices(),
    AddFirstBoot(),
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


def step_refusals(options: EngineOptions, registry: Registry, target: CloudTarget) -> list[Refusal]:
    """Return why steps that would run cannot do their work in this guest."""
    chosen = [step for step in STEPS if step.is_chosen(options)]
    return [found for step in chosen for found in step.guest_problems(registry, target)]


def run_steps(context: Context) -> list[Change]:
    """Run the required steps and the chosen ones; return all changes in order."""
    for step in STEPS:
        if step.is_chosen(context.options):
            context.recorder.begin(step.name, step.tier)
            step.run(context)
    return context.recorder.changes
