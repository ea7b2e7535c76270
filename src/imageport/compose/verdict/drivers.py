"""Verdict items about drivers: the way to the disk, and the target's network adapter."""

from __future__ import annotations

from collections.abc import Iterator

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineJob
from imageport.compose.drivers.inf import MAX_INF_BYTES, DriverInf, parse_inf
from imageport.compose.drivers.inf_models import WindowsVersion
from imageport.compose.drivers.installed_drivers import (
    find_installed,
    infs_for,
    package_of,
    services_of,
    stored_package,
)
from imageport.compose.drivers.offline_choice import (
    GuestDrivers,
    is_offline_kind,
    offline_problem,
    wanted_nics,
)
from imageport.compose.drivers.package_layout import PackageLayout
from imageport.compose.drivers.package_state import missing_parts
from imageport.compose.first_boot.plan import ADD_DRIVER, FOLDER, PLAN_FILE, read_plan
from imageport.compose.verdict.evidence import Check, Evidence, Finding, When, startable
from imageport.compose.volumes.descriptors import who_else_may_write

_BOOT_DATABASE = "SYSTEM"
_SERVICES = "S-1-5-80-"
"""Identities of services; Windows gives its installer (TrustedInstaller) everything it installs."""


def driver_database(evidence: Evidence, _job: EngineJob, target: CloudTarget) -> Finding:
    """The driver database of SYSTEM binds each device on the way to the disk to its driver.

    That of DRIVERS is not asked: the kernel reads it once it has a disk.
    """
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
        services = services_of(evidence.registry, hive, package) if hive == _BOOT_DATABASE else []
        for service in services:
            yield f"{device} is served by {inf} ({package}), service {service}"


def network_driver_ready(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    """A driver for the target's network adapter is installed, or staged for first boot."""
    finding = _installed(evidence, job, target)
    if not finding.problems:
        return finding
    for name, data in _staged(evidence):
        inf = parse_inf(data)
        served = [wanted for wanted in wanted_nics(job.options, target) if inf.serves(wanted)]
        if served:
            return Finding(facts=[f"{served[0]} will be served by {name}"])
    return finding


def network_driver_installed(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    """After the boot: the driver is in database and store, its service and file are there."""
    return _installed(evidence, job, target)


def driver_packages(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    """Each package that was put in offline is in the guest, with nothing missing.

    One that could not be is told: whether the devices have a driver is judged by other items.
    """
    finding = Finding()
    guest = GuestDrivers(
        job.options, target, evidence.inspection, evidence.registry, evidence.files
    )
    for name, data in _staged(evidence):
        inf = parse_inf(data)
        if not is_offline_kind(inf, job.options, target):
            continue
        if problem := offline_problem(guest, inf):
            finding.facts.append(f"{name} was left to first boot: {problem}")
            continue
        found = _package(evidence, name, inf, data)
        finding.facts += found.facts
        finding.problems += found.problems
    if not finding.facts and not finding.problems:
        finding.facts.append("no package was added for the disk or the network adapter")
    return finding


def _package(evidence: Evidence, name: str, inf: DriverInf, data: bytes) -> Finding:
    """Judge one package.

    After the one boot it may be there twice: Windows gives a package's folder another name than we
    do when it takes it for a new one. One that is whole will do.
    """
    problems: list[str] = []
    for known in find_installed(evidence.registry, evidence.files, data):
        layout = _layout(evidence, name, inf, known.oem_inf, known.store)
        missing = missing_parts(evidence.registry, evidence.files, layout, known.hive)
        found = [f"{name} as {known.oem_inf} lacks {part}" for part in missing]
        found += [] if missing else _open_files(evidence, layout)
        if not found:
            return Finding(
                facts=[f"{name} is {known.oem_inf} in {known.hive}, folder {known.store}"]
            )
        problems += found
    return Finding(problems=problems or [f"{name} is not in \\Windows\\INF"])


def _open_files(evidence: Evidence, layout: PackageLayout) -> Iterator[str]:
    """Yield what of a package somebody may change who is no administrator."""
    paths = [layout.store_folder, layout.inf_path, layout.catalogue_path, *layout.copies()]
    paths += [f"{layout.store_folder}/{name}" for name in layout.files]
    for path in paths:
        found = who_else_may_write(evidence.files.descriptor(path))
        others = [sid for sid in found if not sid.startswith(_SERVICES)]
        if others:
            yield f"{path} may be changed by {', '.join(others)}"


def _layout(
    evidence: Evidence, name: str, inf: DriverInf, oem_inf: str, store: str
) -> PackageLayout:
    inspection = evidence.inspection
    inf_name = name.rpartition("\\")[2]
    files = tuple(dict.fromkeys([inf_name, *filter(None, [inf.catalog]), *inf.source_files]))
    system = WindowsVersion.of(inspection.build, inspection.product_name)
    return PackageLayout(inf, inf_name, files, system, oem_inf, store)


def _staged(evidence: Evidence) -> Iterator[tuple[str, bytes]]:
    r"""Yield (PACKAGE\INF, the INF's content) of each package that first boot adds."""
    if not evidence.files.exists(PLAN_FILE):
        return
    for step in read_plan(evidence.files).steps:
        if step.verb == ADD_DRIVER:
            path = f"{FOLDER}/drivers/{step.arguments[0]}".replace("\\", "/")
            yield step.arguments[0], evidence.files.read(path, MAX_INF_BYTES)


def _installed(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    problems: list[str] = []
    wanted = wanted_nics(job.options, target)
    for hardware_id in wanted:
        for hive, inf in infs_for(evidence.registry, hardware_id):
            problem = _package_problem(evidence, hive, inf)
            if not problem:
                return Finding(facts=[f"{hardware_id} is served by {inf} in {hive}"])
            problems.append(problem)
    return Finding(problems=problems or [f"no installed driver serves {' or '.join(wanted)}"])


def _package_problem(evidence: Evidence, hive: str, inf: str) -> str:
    package = stored_package(evidence.registry, evidence.files, hive, inf)
    if not package:
        named = package_of(evidence.registry, hive, inf)
        return f"{inf}: its package '{named}' is not in the driver store"
    current = evidence.registry.current_control_set
    for service in services_of(evidence.registry, hive, package):
        problem = startable(evidence, current, (service,))
        if problem:
            return f"{inf}: {problem}"
    return ""


CHECKS = (
    Check("driver_database", driver_database),
    Check("driver_packages", driver_packages),
    Check("network_driver", network_driver_ready, When.BEFORE_BOOT),
    Check("network_driver", network_driver_installed, When.AFTER_BOOT),
)
