"""The first boot: a folder, a script, a plan and a service that runs it once."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import EngineOptions, Refusal, Tier
from imageport.compose.first_boot.plan import (
    FOLDER,
    PLAN_FILE,
    PROGRAMS,
    REMOVE_SERVICE,
    SERVICE,
    FirstBootPlan,
)
from imageport.compose.first_boot.programs import needed_programs, own_programs
from imageport.compose.first_boot.script import IMAGE_PATH, render_script
from imageport.compose.first_boot.undo import (
    UNDO_FILE,
    EarlierBoot,
    earlier_boot,
    read_undo,
    render_undo,
)
from imageport.compose.hives.registry import service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.refusals import refusal
from imageport.compose.step import Context, Facts, Step
from imageport.compose.volumes.descriptors import Access
from imageport.errors import EngineFailed

_OWN_PROCESS, _AUTOMATIC, _ERROR_NORMAL = 0x10, 2, 1
_MIN_DEADLINE_SECONDS, _MAX_DEADLINE_SECONDS = 60, 7200
_MAX_ATTEMPTS = 10


class MakeFirstBootFolder(Step):
    """Make the folder that only SYSTEM and Administrators can see into, in place of an old one."""

    name: ClassVar[str] = "make_first_boot_folder"
    tier: ClassVar[Tier] = Tier.REQUIRED
    provides: ClassVar[tuple[str, ...]] = ("first-boot-folder",)

    def guest_problems(self, facts: Facts) -> list[Refusal]:
        """Refuse an image whose earlier first boot cannot be told: it may still hold something."""
        if earlier_boot(facts.files) is not EarlierBoot.UNKNOWN:
            return []
        reason = f"The image holds '{FOLDER}', from a first boot that broke off or is not ours."
        return [refusal("already_prepared", reason)]

    def run(self, context: Context) -> None:
        """Undo what an earlier composing holds, take its service and folder away, add the folder.

        Raises:
            EngineFailed: a folder that `guest_problems` refuses.
        """
        earlier = earlier_boot(context.files)
        if earlier is EarlierBoot.COMPOSED:
            _put_back(context)
        if earlier in {EarlierBoot.COMPOSED, EarlierBoot.FINISHED}:
            for control_set in context.registry.control_sets:
                context.recorder.delete_key("SYSTEM", service_path(control_set, SERVICE))
            context.recorder.remove(FOLDER)
        context.recorder.add_folder(FOLDER, Access.ADMINISTRATORS_ONLY)


def _put_back(context: Context) -> None:
    """Put back what is held; a key that is gone since stays gone."""
    for item in reversed(read_undo(context.files)):
        if context.registry.key(item.hive, item.key) is None:
            continue
        if item.before is None:
            context.recorder.delete_value(item.hive, item.key, item.name)
        else:
            context.recorder.set_value(item.hive, item.key, item.name, item.before)


class AddFirstBoot(Step):
    """Run the plan once at the next start, as a service, then shut down."""

    name: ClassVar[str] = "add_first_boot"
    tier: ClassVar[Tier] = Tier.REQUIRED
    needs: ClassVar[tuple[str, ...]] = (
        "first-boot-folder",
        "drivers-staged",
        "agent-staged",
        "services-held",
    )
    options: ClassVar[tuple[str, ...]] = ("first_boot_deadline_seconds", "first_boot_attempts")

    def problems(self, options: EngineOptions) -> list[str]:
        """Check the two bounds."""
        found = []
        deadline = options.first_boot_deadline_seconds
        if not _MIN_DEADLINE_SECONDS <= deadline <= _MAX_DEADLINE_SECONDS:
            found.append(f"first_boot_deadline_seconds: {deadline} is not within 60 to 7200")
        if not 1 <= options.first_boot_attempts <= _MAX_ATTEMPTS:
            found.append(
                f"first_boot_attempts: {options.first_boot_attempts} is not within 1 to 10"
            )
        return found

    def run(self, context: Context) -> None:
        """Write script and plan, and the service in every control set."""
        context.plan.add(REMOVE_SERVICE, SERVICE)
        plan = context.plan.ordered()
        plan.deadline_seconds = context.options.first_boot_deadline_seconds
        plan.attempts = context.options.first_boot_attempts
        sets = context.registry.control_sets
        access = Access.ADMINISTRATORS_ONLY
        context.recorder.add_file(PLAN_FILE, plan.render(), access)
        context.recorder.add_file(f"{FOLDER}/firstboot.cmd", render_script(plan, sets), access)
        context.recorder.add_file(UNDO_FILE, render_undo(plan.held), access)
        _add_programs(context, plan)
        for control_set in sets:
            path = service_path(control_set, SERVICE)
            for name, value in _service_values().items():
                context.recorder.set_value("SYSTEM", path, name, value)


def _add_programs(context: Context, plan: FirstBootPlan) -> None:
    for path, content in own_programs(plan).items():
        context.recorder.ensure_folder(PROGRAMS, Access.ADMINISTRATORS_ONLY)
        context.recorder.add_file(path, content, Access.ADMINISTRATORS_ONLY)
    for path in needed_programs(plan):
        if not context.files.exists(path):
            raise EngineFailed(f"Cannot plan the first boot: no step has added '{path}'.")


def _service_values() -> dict[str, Value]:
    return {
        "Type": Value.dword(_OWN_PROCESS),
        "Start": Value.dword(_AUTOMATIC),
        "ErrorControl": Value.dword(_ERROR_NORMAL),
        "ObjectName": Value.text("LocalSystem"),
        "DisplayName": Value.text("Imageport first boot"),
        "ImagePath": Value.expandable(IMAGE_PATH),
    }
