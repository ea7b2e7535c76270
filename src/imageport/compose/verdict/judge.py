"""The readiness verdict: would this disk boot and stream where it is going? Each with evidence.

After composing it is judged from the disk read afresh (or, for a plan, from what it would be);
after the one boot from what Windows made of it.
"""

from __future__ import annotations

from collections.abc import Callable

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import Action, EngineJob, VerdictItem
from imageport.compose.verdict import azure, boot, first_boot, guest
from imageport.compose.verdict.evidence import Evidence, Finding
from imageport.errors import ImageportError

Check = Callable[[Evidence, EngineJob, CloudTarget], Finding]

_ALWAYS: tuple[tuple[str, Check], ...] = (
    ("boot_drivers", boot.boot_drivers),
    ("boot_driver_files", boot.boot_driver_files),
    ("driver_database", boot.driver_database),
    ("class_filters", boot.class_filters_resolve),
    ("efi_loader", boot.efi_loader),
    ("boot_store", boot.boot_store_resolves),
    ("firmware", boot.firmware_fits),
    ("pvs_target", guest.pvs_target),
    ("vmware_idle", guest.vmware_idle),
    ("dependencies", guest.dependencies),
    ("addresses", guest.addresses),
    ("hives", guest.hives_clean),
    ("descriptors", guest.descriptors),
)
_ALWAYS_ON: dict[str, tuple[tuple[str, Check], ...]] = {
    "azure": (
        ("disks_online", azure.disks_online),
        ("dvd_drive", azure.dvd_drive),
        ("faster_adapters", azure.faster_adapters),
        ("vm_agent", azure.vm_agent),
    ),
}
"""Further items, by cloud."""
_COMPOSED: tuple[tuple[str, Check], ...] = (
    ("network_driver", guest.network_driver_ready),
    ("first_boot_ready", first_boot.ready),
)
_BOOTED: tuple[tuple[str, Check], ...] = (
    ("network_driver", guest.network_driver_installed),
    ("first_boot_done", first_boot.done),
    ("services_restored", first_boot.services_restored),
    ("service_removed", first_boot.service_removed),
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
