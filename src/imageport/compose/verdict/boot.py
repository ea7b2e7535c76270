"""Verdict items about starting: drivers, files, filters, the EFI loader and the boot store."""

from __future__ import annotations

from imageport.compose.boot_device import WHERE_IT_STARTED, boot_partition
from imageport.compose.boot_store import BootEntry, default_entry
from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import Action, EngineJob
from imageport.compose.drivers.class_filters import class_filters
from imageport.compose.guest_paths import guest_path
from imageport.compose.hives.hive import Key
from imageport.compose.hives.registry import BOOT_STORE_HIVE, boot_store_path, service_path
from imageport.compose.refusals import ESP_LOADER
from imageport.compose.steps.source.all_steps import is_source_service
from imageport.compose.verdict.evidence import Check, Evidence, Finding, startable
from imageport.compose.volumes.efi_program import HEAD_BYTES, efi_program_problem

BIOS_LOADER = "bootmgr"
"""On the active partition; the code of its boot sector starts it."""
_DRIVERS = {1, 2}
"""A service's Type: driver of the kernel, of a file system."""
_COMPANIONS = (("intelide", "pciidex"), ("atapi", "ataport"))
"""(driver, library that it is linked to): without the second's file the first does not load."""
_ERROR_SEVERE = 2
"""From this ErrorControl up a driver that does not load stops the start (3) or the session."""
_CLASSES_TO_BOOT = {
    "{4d36e967-e325-11ce-bfc1-08002be10318}",  # DiskDrive
    "{4d36e96a-e325-11ce-bfc1-08002be10318}",  # HDC
    "{4d36e972-e325-11ce-bfc1-08002be10318}",  # Net
    "{4d36e97b-e325-11ce-bfc1-08002be10318}",  # SCSIAdapter
    "{4d36e97d-e325-11ce-bfc1-08002be10318}",  # System
    "{71a27cdd-812a-11d0-bec7-08002be2092f}",  # Volume
}
"""Classes without which a machine neither starts nor streams. In others Windows itself leaves loose
ends: real hives name a filter IRENUM of infrared devices whose service is gone."""


def boot_drivers(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    """The target's storage drivers start at boot in every control set, nothing overrides it.

    After the one boot an override is told only: Windows put it under a driver that the machine,
    of the very kind that the image is for, did without.
    """
    finding = Finding()
    has_booted = job.action is Action.VERIFY
    for control_set in evidence.registry.control_sets:
        for driver in (*target.boot_drivers, *target.old_boot_drivers):
            start = evidence.registry.start_of(control_set, driver)
            if start is None and driver in target.old_boot_drivers:
                continue
            path = service_path(control_set, driver)
            override = evidence.registry.key("SYSTEM", f"{path}\\StartOverride")
            if start != 0:
                finding.problems.append(f"{control_set}: {driver} Start is {start}, needed 0")
            if override is not None:
                where = finding.facts if has_booted else finding.problems
                where.append(f"{control_set}: {driver} has a StartOverride")
            if start == 0 and override is None:
                finding.facts.append(f"{control_set}: {driver} Start 0, no StartOverride")
    return finding


def boot_driver_files(evidence: Evidence, _job: EngineJob, target: CloudTarget) -> Finding:
    """Every driver that starts at boot, and whose absence Windows would not forgive, has its file.

    Real systems list storage drivers of many makers; one that is missing is passed over when its
    ErrorControl says so, or when a StartOverride keeps it from starting.
    """
    finding = Finding()
    current = evidence.registry.current_control_set
    services = evidence.registry.key("SYSTEM", f"{current}\\Services")
    wanted = {*target.boot_drivers, *target.old_boot_drivers}
    count = 0
    for service in services.children() if services else []:
        if service.number("Start") != 0 or service.number("Type") not in _DRIVERS:
            continue
        count += 1
        name = service.name
        path = evidence.binary_of(current, name)
        if evidence.files.exists(path):
            continue
        if name.lower() in wanted or _must_load(service):
            finding.problems.append(f"{name} starts at boot, its file {path} is missing")
        else:
            finding.facts.append(f"{name} has no file and is passed over")
    finding.facts.insert(0, f"{count} boot-start drivers looked at")
    finding.problems += _missing_companions(evidence, target)
    return finding


def _missing_companions(evidence: Evidence, target: CloudTarget) -> list[str]:
    current = evidence.registry.current_control_set
    missing = []
    for driver, library in _COMPANIONS:
        path = f"Windows/System32/drivers/{library}.sys"
        is_there = evidence.registry.service(current, driver) is not None
        if driver in target.old_boot_drivers and is_there and not evidence.files.exists(path):
            missing.append(f"{driver} needs {path}, which is missing")
    return missing


def class_filters_resolve(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Every filter of a class that a start needs exists, may start and has its file."""
    finding = Finding()
    count = 0
    for control_set in evidence.registry.control_sets:
        for device_class, service in class_filters(evidence.registry, control_set):
            count += 1
            obstacle = startable(evidence, control_set, (service,))
            if obstacle is None:
                continue
            matters = device_class.lower() in _CLASSES_TO_BOOT or is_source_service(service)
            where = finding.problems if matters else finding.facts
            where.append(f"{control_set}: {service} of {device_class} {obstacle.reason}")
    finding.facts.insert(0, f"{count} class filters looked at")
    return finding


def boot_loader(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """What firmware starts is there: a new machine has no boot entries of its own."""
    path = ESP_LOADER if _is_uefi(evidence) else BIOS_LOADER
    shown = "\\" + path.replace("/", "\\")
    if evidence.boot_files is None or not evidence.boot_files.exists(path):
        return Finding(problems=[f"{shown} is missing on the partition that firmware starts from"])
    size = evidence.boot_files.size_bytes(path)
    if not size:
        return Finding(problems=[f"{shown} is empty"])
    if _is_uefi(evidence):
        problem = efi_program_problem(evidence.boot_files.read(path, HEAD_BYTES))
        if problem:
            return Finding(problems=[f"{shown} is {problem}"])
    return Finding(facts=[f"{shown}, {size} bytes"])


def boot_store_resolves(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """The default boot entry names this disk, its Windows partition and a loader that exists."""
    path = boot_store_path(evidence.inspection.firmware)
    store = evidence.registry.hives.get(BOOT_STORE_HIVE)
    if store is None or evidence.boot_files is None or not evidence.boot_files.exists(path):
        return Finding(problems=[f"\\{path} is missing".replace("/", "\\")])
    entry = default_entry(store)
    if isinstance(entry, str):
        return Finding(problems=[entry])
    return _judge_entry(evidence, entry)


def firmware_fits(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    """The image boots by the firmware that its machines have.

    Machines that stream boot by UEFI, and so do all that are made from images for Azure; elsewhere
    a machine catalog may boot by BIOS.
    """
    if _is_uefi(evidence):
        return Finding(facts=["GPT with an EFI system partition"])
    found = evidence.inspection.firmware or "nothing"
    if found != "bios" or job.options.provisioning == "pvs" or target.is_uefi_only:
        return Finding(problems=[f"the image boots by {found}"])
    return Finding(facts=["MBR; machine catalogs there may boot by BIOS"])


def _is_uefi(evidence: Evidence) -> bool:
    return evidence.inspection.firmware == "uefi"


def _must_load(service: Key) -> bool:
    severity = service.number("ErrorControl") or 0
    override = service.child("StartOverride")
    is_held = override is not None and override.number("0")
    return severity >= _ERROR_SEVERE and not is_held


def _judge_entry(evidence: Evidence, entry: BootEntry) -> Finding:
    finding = Finding(facts=[f"default entry {entry.identifier} loads {entry.loader_path}"])
    windows = boot_partition(evidence.table, evidence.windows) if evidence.windows else None
    started_from = evidence.table.boot_partition
    for what, device in (("loader", entry.loader_device), ("system", entry.system_device)):
        if device == WHERE_IT_STARTED and (what == "system" or started_from == evidence.windows):
            continue  # of the system: where the loader itself was found
        if device == WHERE_IT_STARTED:
            finding.problems.append("the loader device is where the boot manager lies, not Windows")
        elif isinstance(device, str):
            finding.problems.append(f"the {what} device is {device}")
        elif device != windows:
            finding.problems.append(
                f"the {what} device names partition {device.partition} elsewhere"
            )
    path = guest_path(entry.loader_path)
    if not evidence.files.exists(path):
        finding.problems.append(f"the loader {entry.loader_path} is missing")
    if path.lower().endswith(".efi") != _is_uefi(evidence):
        finding.problems.append(f"the loader {entry.loader_path} is for another firmware")
    if entry.system_root.strip("\\").lower() != "windows":
        finding.problems.append(f"the system root is '{entry.system_root}'")
    return finding


CHECKS = (
    Check("boot_drivers", boot_drivers),
    Check("boot_driver_files", boot_driver_files),
    Check("class_filters", class_filters_resolve),
    Check("boot_loader", boot_loader),
    Check("boot_store", boot_store_resolves),
    Check("firmware", firmware_fits),
)
