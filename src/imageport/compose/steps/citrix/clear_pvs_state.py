"""Provisioning Services: what the image keeps of the device that it was streamed to."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.contract import Tier
from imageport.compose.drivers.class_filters import filter_services
from imageport.compose.guest_paths import service_binary
from imageport.compose.hives.registry import DISABLED, Registry, service_path
from imageport.compose.hives.registry_value import Value
from imageport.compose.step import Context, Facts, Step
from imageport.compose.steps.citrix.provisioning_state import (
    DEVICE_SERVICE,
    FILE_SYSTEM_FILTER,
    NETWORK_STACKS,
    PERSONALITY,
    dependents,
    device_values,
    write_caches,
)
from imageport.compose.volumes.guest_files import GuestFiles


class ClearPvsState(Step):
    """Forget the old device: write caches, personality, disk; for MCS the target software rests.

    A driver that filters a device class, or that another service needs, is left as it is: stopping
    it would stop that too. The file system filter is stopped only when its file is gone, for then
    it would stop the start.
    """

    name: ClassVar[str] = "clear_pvs_state"
    tier: ClassVar[Tier] = Tier.REQUIRED

    def reason(self, facts: Facts) -> str:
        """Say what of the old device is there."""
        caches = write_caches(facts.files)
        values = device_values(facts.registry)
        resting = sorted({service for _, service in _to_rest(facts)})
        said = [f"{len(caches)} write-cache files"] if caches else []
        said += [PERSONALITY] if facts.files.exists(PERSONALITY) else []
        said += [f"{len(values)} values about the old device"] if values else []
        said += [f"{', '.join(resting)} would start on an MCS machine"] if resting else []
        return "; ".join(said)

    def run(self, context: Context) -> None:
        """Remove files and values; for an MCS target stop the target software from starting."""
        for name in (*write_caches(context.files), PERSONALITY):
            context.recorder.remove(name)
        for key, name in device_values(context.registry):
            context.recorder.delete_value("SYSTEM", key, name)
        for control_set, service in _to_rest(context):
            path = service_path(control_set, service)
            context.recorder.set_value("SYSTEM", path, "Start", Value.dword(DISABLED))


def left_to_start(registry: Registry, files: GuestFiles) -> list[tuple[str, str]]:
    """Return (control set, service) of the target software that must not start under MCS."""
    found = []
    for control_set in registry.control_sets:
        resting = [DEVICE_SERVICE, *_idle_stacks(registry, control_set)]
        if not files.exists(service_binary(registry, control_set, FILE_SYSTEM_FILTER)):
            resting.append(FILE_SYSTEM_FILTER)
        found += [
            (control_set, service)
            for service in resting
            if registry.start_of(control_set, service) not in {None, DISABLED}
        ]
    return found


def _idle_stacks(registry: Registry, control_set: str) -> list[str]:
    """Return the network stacks that nothing needs but what rests itself."""
    filters = {name.lower() for name in filter_services(registry, control_set)}
    resting = {DEVICE_SERVICE.lower()}
    for service in NETWORK_STACKS * len(NETWORK_STACKS):  # one may rest because another does
        needing = {name.lower() for name in dependents(registry, control_set, service)}
        if service.lower() not in filters and needing <= resting:
            resting.add(service.lower())
    return [service for service in NETWORK_STACKS if service.lower() in resting]


def _to_rest(facts: Facts) -> list[tuple[str, str]]:
    is_mcs = facts.options.provisioning == "mcs"
    return left_to_start(facts.registry, facts.files) if is_mcs else []
