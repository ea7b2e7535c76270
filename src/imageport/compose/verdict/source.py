"""Verdict items about the platform that the image comes from."""

from __future__ import annotations

from collections.abc import Iterator

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineJob
from imageport.compose.first_boot.plan import PLAN_FILE, RESET_WINSOCK, read_plan
from imageport.compose.hives.registry import service_path
from imageport.compose.step import Facts
from imageport.compose.steps.source.all_steps import PLATFORMS, is_source_service
from imageport.compose.steps.source.old_tools import OldTools, find_old_tools
from imageport.compose.steps.source.platform_services import named_services
from imageport.compose.steps.source.winsock_catalog import winsock_entries
from imageport.compose.verdict.evidence import Check, Evidence, Finding

_ON_DEMAND = 3
"""A service's Start; what is below starts by itself."""
_LIBRARY_FOLDERS = ("Windows/System32", "Windows/SysWOW64")


def source_removed(evidence: Evidence, job: EngineJob, target: CloudTarget) -> Finding:
    """Nothing of a source platform starts by itself, and no list names what is gone."""
    finding = Finding()
    facts = Facts(
        job.options,
        target,
        evidence.inspection,
        evidence.registry,
        evidence.files,
        evidence.boot_files,
    )
    for platform in PLATFORMS:
        tools = find_old_tools(facts, platform)
        finding.problems += _self_starting(evidence, tools)
        finding.facts += _leftovers(tools)
    libraries = {name for platform in PLATFORMS for name in platform.winsock_libraries}
    for control_set in evidence.registry.control_sets:
        finding.problems += _named_but_gone(evidence, control_set)
        finding.problems += _winsock(evidence, control_set, libraries)
    finding.facts.insert(0, "no source platform's tools start by themselves")
    return finding


def _self_starting(evidence: Evidence, tools: OldTools) -> Iterator[str]:
    for control_set, services in tools.services.items():
        for service in services:
            start = evidence.registry.start_of(control_set, service)
            if start is not None and start < _ON_DEMAND:
                yield f"{control_set}: {service} of {tools.platform.title} has Start {start}"


def _leftovers(tools: OldTools) -> Iterator[str]:
    for package in tools.packages:
        names = " and ".join(package.services) or package.oem_inf
        yield f"{names} ({tools.platform.title}): {package.stays or 'left over'}"
    for title in tools.software.titles:
        yield f"{title} is still listed as installed"


def _named_but_gone(evidence: Evidence, control_set: str) -> Iterator[str]:
    """Yield what filters, network providers and dependencies name of a platform's in vain."""
    for name in sorted(set(named_services(evidence.registry, control_set))):
        if is_source_service(name) and evidence.registry.service(control_set, name) is None:
            place = service_path(control_set, name)
            yield f"{place} does not exist; a filter, network provider or dependency names it"


def _winsock(evidence: Evidence, control_set: str, libraries: set[str]) -> Iterator[str]:
    for entry in winsock_entries(evidence.registry, control_set):
        if entry.library not in libraries:
            continue
        if any(evidence.files.exists(f"{folder}/{entry.library}") for folder in _LIBRARY_FOLDERS):
            continue
        if not _will_reset(evidence):
            yield f"{control_set}: Winsock's {entry.catalogue} names {entry.library}, which is gone"


def _will_reset(evidence: Evidence) -> bool:
    if not evidence.files.exists(PLAN_FILE):
        return False
    return any(step.verb == RESET_WINSOCK for step in read_plan(evidence.files).steps)


CHECKS = (Check("source_removed", source_removed),)
