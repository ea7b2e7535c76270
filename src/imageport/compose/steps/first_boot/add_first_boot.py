"""The first boot: a folder, a script, a plan and a service that runs it once."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import EngineOptions, Tier
from imageport.compose.first_boot.plan import FOLDER, REMOVE_SERVICE, SERVICE
from imageport.compose.first_boot.script import IMAGE_PATH, render_script
from imageport.compose.hives.registry import service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Step
from imageport.compose.volumes.descriptors import Access

_OWN_PROCESS, _AUTOMATIC, _ERROR_NORMAL = 0x10, 2, 1
_MIN_DEADLINE_SECONDS, _MAX_DEADLINE_SECONDS = 60, 7200
_MAX_ATTEMPTS = 10


class MakeFirstBootFolder(Step):
    """Make the folder that only SYSTEM and Administrators can see into."""

    name: ClassVar[str] = "make_first_boot_folder"
    tier: ClassVar[Tier] = Tier.REQUIRED
    provides: ClassVar[tuple[str, ...]] = ("first-boot-folder",)

    def run(self, context: Context) -> None:
        """Add the folder; one that is already there (an earlier run's) is refused."""
        context.recorder.add_folder(FOLDER, Access.ADMINISTRATORS_ONLY)


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
        context.recorder.add_file(f"{FOLDER}/plan.txt", plan.render(), access)
        context.recorder.add_file(f"{FOLDER}/firstboot.cmd", render_script(plan, sets), access)
        for control_set in sets:
            path = service_path(control_set, SERVICE)
            for name, value in _service_values().items():
                context.recorder.set_value("SYSTEM", path, name, value)


def _service_values() -> dict[str, Value]:
    return {
        "Type": Value.dword(_OWN_PROCESS),
        "Start": Value.dword(_AUTOMATIC),
        "ErrorControl": Value.dword(_ERROR_NORMAL),
        "ObjectName": Value.text("LocalSystem"),
        "DisplayName": Value.text("Imageport first boot"),
        "ImagePath": Value.expandable(IMAGE_PATH),
    }
