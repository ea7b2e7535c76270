"""The readiness verdict: would this disk boot and stream where it is going? Each with evidence.

After composing it is judged from the disk read afresh (or, for a plan, from what it would be);
after the one boot from what Windows made of it.
"""

from __future__ import annotations

from collections.abc import Callable

from imageport.compose import verdict_azure, verdict_boot, verdict_first_boot, verdict_guest
from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import Action, EngineJob, VerdictItem
from imageport.compose.evidence import Evidence, Finding
from imageport.errors import ImageportError

Check = Callable[[Evidence, EngineJob, CloudTarget], Finding]

_ALWAYS: tuple[tuple[str, Check], ...] = (
    ("boot_drivers", verdict_boot.boot_drivers),
    ("boot_driver_files", verdict_boot.boot_driver_files),
    ("driver_database", verdict_boot.driver_database),
    ("class_filters", verdict_boot.class_filters_resolve),
    ("efi_loader", verdict_boot.efi_loader),
    ("boot_store", verdict_boot.boot_store_resolves),
    ("firmware", verdict_boot.firmware_fits),
    ("pvs_target", verdict_guest.pvs_target),
    ("vmware_idle", verdict_guest.vmware_idle),
    ("dependencies", verdict_guest.dependencies),
    ("addresses", verdict_guest.addresses),
    ("hives", verdict_guest.hives_clean),
    ("descriptors", verdict_guest.descriptors),
)
_ALWAYS_ON: dict[str, tuple[tuple[str, Check], ...]] = {
    "azure": (
        ("disks_online", verdict_azure.disks_online),
        ("dvd_drive", verdict_azure.dvd_drive),
        ("faster_adapters", verdict_azure.faster_adapters),
        ("vm_agent", verdict_azure.vm_agent),
    ),
}
"""Further items, by cloud."""
_COMPOSED: tuple[tuple[str, Check], ...] = (
    ("network_driver", verdict_guest.network_driver_ready),
    ("first_boot_ready", verdict_first_boot.ready),
)
_BOOTED: tuple[tuple[str, Check], ...] = (
    ("network_driver", verdict_guest.network_driver_installed),
    ("first_boot_done", verdict_first_boot.done),
    ("services_restored", verdict_first_boot.services_restored),
    ("service_removed", verdict_first_boot.service_removed),
)


def judge(evidence: Evidence, job: EngineJob, target: CloudTarget) -> list[VerdictItem]:
    """Return every item; an item that cannot be judged has failed, with the reason."""
    checks = _ALWAYS + _ALWAYS_ON.get(target.name, ())
    checks += _BOOTED if job.action is Action.VERIFY else _COMPOSED
    return [_item(name, check, evidence, job, target) for name, check in checks]


def _item(
    name: str, check: Check, evidence: Evidence, job: EngineJob, target: CloudTarget
) -> VerdictItem:
    try:
        finding = check(evidence, job, target)
    except ImageportError as error:
        return VerdictItem(name, passed=False, evidence=error.message)
    return VerdictItem(name, not finding.problems, finding.text())
