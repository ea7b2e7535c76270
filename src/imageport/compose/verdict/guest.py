"""Verdict items about the system inside: network driver, Citrix software, services, access."""

from __future__ import annotations

from collections.abc import Iterator

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineJob
from imageport.compose.drivers.inf import MAX_INF_BYTES, parse_inf
from imageport.compose.drivers.installed_drivers import infs_for, package_of, services_of
from imageport.compose.first_boot.plan import ADD_DRIVER, FOLDER, parse_plan
from imageport.compose.hives.registry import EDITED_HIVES, hive_header, hive_path, service_path
from imageport.compose.inspection import pvs_target_version
from imageport.compose.steps.source.disable_vmware_services import VMWARE_SERVICES
from imageport.compose.verdict.evidence import Evidence, Finding
from imageport.compose.volumes.descriptors import (
    ADMINISTRATORS,
    SYSTEM,
    entries_of,
    who_else_may_write,
)
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import EngineFailed

_DISABLED = 4
_DRIVER_STORE = "Windows/System32/DriverStore/FileRepository"
_PVS_SERVICES = (("BNDevice",), ("bnistack6", "bnistack"), ("CVhdMp", "CVhdBusP6"), ("CFsDep2",))
"""Device service, network stack, disk and file system filter; names differ by version."""
_MAX_DEPTH = 6
_BLAMED_WHEN_MISSING = ("PvsVmAgent",)
"""LanmanWorkstation depends on it where Citrix' agent was installed; gone, the domain is lost."""


def network_driver_ready(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    """A driver for the target's network adapter is installed, or staged for first boot."""
    finding = _installed(evidence, job, target)
    if not finding.problems:
        return finding
    plan = parse_plan(evidence.files.read(f"{FOLDER}/plan.txt", 65536))
    for step in plan.steps:
        if step.verb != ADD_DRIVER:
            continue
        path = f"{FOLDER}/drivers/{step.arguments[0]}".replace("\\", "/")
        inf = parse_inf(evidence.files.read(path, MAX_INF_BYTES))
        served = [wanted for wanted in _nic_ids(job, target) if inf.serves(wanted)]
        if served:
            return Finding(facts=[f"{served[0]} will be served by {step.arguments[0]}"])
    return finding


def network_driver_installed(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    """After the boot: the driver is in database and store, its service and file are there."""
    return _installed(evidence, job, target)


def pvs_target(evidence: Evidence, job: EngineJob, _target: CloudTarget) -> Finding:
    """The Provisioning target device software is complete and may start."""
    if job.options.provisioning != "pvs":
        return Finding(facts=["not needed for this provisioning"])
    version = pvs_target_version(evidence.registry)
    if not version:
        return Finding(problems=["the target device software is not installed"])
    finding = Finding(facts=[f"target device software {version}"])
    for control_set in evidence.registry.control_sets:
        for names in _PVS_SERVICES:
            problem = _startable(evidence, control_set, names)
            if problem:
                finding.problems.append(f"{control_set}: {problem}")
    return finding


def vmware_idle(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Nothing of VMware Tools starts by itself."""
    finding = Finding(facts=["no service of VMware Tools starts by itself"])
    for control_set in evidence.registry.control_sets:
        for service in VMWARE_SERVICES:
            start = evidence.registry.start_of(control_set, service)
            if start is not None and start < _DISABLED - 1:
                finding.problems.append(f"{control_set}: {service} Start is {start}")
    return finding


def dependencies(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """No service that starts by itself depends on one that composing took away."""
    finding = Finding(facts=["no dependency leads to a service that was taken away"])
    taken = {name.lower() for name in (*VMWARE_SERVICES, *_BLAMED_WHEN_MISSING)}
    for control_set in evidence.registry.control_sets:
        services = evidence.registry.key("SYSTEM", f"{control_set}\\Services")
        for service in services.children() if services else []:
            start = evidence.registry.start_of(control_set, service.name)
            value = service.value("DependOnService")
            if start is None or start >= _DISABLED or value is None:
                continue
            for needed in value.as_texts():
                state = evidence.registry.start_of(control_set, needed)
                if needed.lower() in taken and state in {None, _DISABLED}:
                    finding.problems.append(f"{control_set}: {service.name} depends on {needed}")
    return finding


def addresses(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Every interface takes its address from DHCP."""
    finding = Finding(facts=["every interface uses DHCP"])
    for control_set in evidence.registry.control_sets:
        path = f"{service_path(control_set, 'Tcpip')}\\Parameters\\Interfaces"
        key = evidence.registry.key("SYSTEM", path)
        for interface in key.children() if key else []:
            value = interface.value("EnableDHCP")
            if value is not None and value.as_number() == 0:
                finding.problems.append(f"{control_set}: {interface.name} has a static address")
    return finding


def hives_clean(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """The hives on the disk are whole: nothing waits in their logs."""
    finding = Finding()
    for name in EDITED_HIVES:
        header = hive_header(evidence.files, name)
        if header is None:
            continue
        if header.is_dirty or header.problem:
            finding.problems.append(f"{name}: {header.problem or 'sequence numbers differ'}")
        finding.facts.append(f"{name} {header.sequence1}/{header.sequence2}")
    return finding


def descriptors(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Nobody but SYSTEM and Administrators may change what we added or rewrote."""
    finding = Finding()
    count = 0
    for path in _below(evidence.files, FOLDER, _MAX_DEPTH):
        count += 1
        entries = entries_of(evidence.files.descriptor(path))
        others = {e.sid for e in entries or []} - {SYSTEM, ADMINISTRATORS}
        if entries is None or others:
            who = ", ".join(sorted(others)) or "everybody"
            finding.problems.append(f"{path} is open to {who}")
    for name in EDITED_HIVES:
        if evidence.files.exists(hive_path(name)):
            count += 1
            others = set(who_else_may_write(evidence.files.descriptor(hive_path(name))))
            if others:
                finding.problems.append(f"hive {name} may be changed by {', '.join(others)}")
    finding.facts.append(f"{count} descriptors read: SYSTEM and Administrators only may write")
    return finding


def _nic_ids(job: EngineJob, target: CloudTarget) -> tuple[str, ...]:
    return job.options.required_nic_ids or target.nic_ids


def _installed(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    problems: list[str] = []
    wanted = _nic_ids(job, target)
    for hardware_id in wanted:
        for hive, inf in infs_for(evidence.registry, hardware_id):
            problem = _package_problem(evidence, hive, inf)
            if not problem:
                return Finding(facts=[f"{hardware_id} is served by {inf} in {hive}"])
            problems.append(problem)
    return Finding(problems=problems or [f"no installed driver serves {' or '.join(wanted)}"])


def _package_problem(evidence: Evidence, hive: str, inf: str) -> str:
    package = package_of(evidence.registry, hive, inf)
    if not package or not evidence.files.exists(f"{_DRIVER_STORE}/{package}"):
        return f"{inf}: its package '{package}' is not in the driver store"
    current = evidence.registry.current_control_set
    for service in services_of(evidence.registry, hive, package):
        problem = _startable(evidence, current, (service,))
        if problem:
            return f"{inf}: {problem}"
    return ""


def _startable(evidence: Evidence, control_set: str, names: tuple[str, ...]) -> str:
    """Return "" when one of the services exists, is not disabled and has its file."""
    for name in names:
        start = evidence.registry.start_of(control_set, name)
        if start is None:
            continue
        path = evidence.binary_of(control_set, name)
        if start == _DISABLED:
            return f"service {name} is disabled"
        return "" if evidence.files.exists(path) else f"service {name} lacks its file {path}"
    return f"service {' or '.join(names)} does not exist"


def _below(files: GuestFiles, folder: str, depth: int) -> Iterator[str]:
    """Yield a folder and all below it; what lies too deep to be judged fails the item."""
    if not files.exists(folder):
        return
    yield folder
    names = files.names(folder)
    if names and not depth:
        raise EngineFailed(f"Cannot judge what lies below '{folder}': found more folders in it.")
    for name in names:
        yield from _below(files, f"{folder}/{name}", depth - 1)
