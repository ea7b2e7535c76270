"""Verdict items about drivers: the way to the disk, and the target's network adapter."""

from __future__ import annotations

from collections.abc import Iterator

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineJob
from imageport.compose.drivers.inf import MAX_INF_BYTES, parse_inf
from imageport.compose.drivers.installed_drivers import infs_for, package_of, services_of
from imageport.compose.first_boot.plan import ADD_DRIVER, FOLDER, parse_plan
from imageport.compose.verdict.evidence import Check, Evidence, Finding, When, startable

_DRIVER_STORE = "Windows/System32/DriverStore/FileRepository"


def driver_database(evidence: Evidence, _job: EngineJob, target: CloudTarget) -> Finding:
    """Windows' driver database binds each device on the way to the disk to its driver."""
    finding = Finding()
    for names in target.boot_devices:
        facts = [fact for name in names for fact in _bindings(evidence, name)]
        finding.facts += facts
        if not facts:
            device = " or ".join(names)
            finding.problems.append(f"no driver database entry binds {device} to a service")
    return finding


def _bindings(evidence: Evidence, device: str) -> Iterator[str]:
    for hive, inf in infs_for(evidence.registry, device):
        package = package_of(evidence.registry, hive, inf)
        for service in services_of(evidence.registry, hive, package):
            yield f"{device} is served by {inf} ({package}), service {service}"


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
        problem = startable(evidence, current, (service,))
        if problem:
            return f"{inf}: {problem}"
    return ""


CHECKS = (
    Check("driver_database", driver_database),
    Check("network_driver", network_driver_ready, When.BEFORE_BOOT),
    Check("network_driver", network_driver_installed, When.AFTER_BOOT),
)
