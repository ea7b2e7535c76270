"""Verdict items about the system inside: network driver, Citrix software, services, access."""

from __future__ import annotations

from collections.abc import Iterator

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineJob
from imageport.compose.first_boot.plan import FOLDER
from imageport.compose.guest_facts.network import static_ipv6
from imageport.compose.hives.registry import (
    DISABLED,
    EDITED_HIVES,
    hive_header,
    hive_path,
    service_path,
)
from imageport.compose.steps.source.all_steps import is_source_service
from imageport.compose.verdict.evidence import Check, Evidence, Finding
from imageport.compose.volumes.descriptors import (
    ADMINISTRATORS,
    SYSTEM,
    entries_of,
    who_else_may_write,
)
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import EngineFailed

_MAX_DEPTH = 6
_BLAMED_WHEN_MISSING = ("PvsVmAgent",)
"""LanmanWorkstation depends on it where Citrix' agent was installed; gone, the domain is lost."""


def dependencies(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """No service that starts by itself depends on one that composing took away."""
    finding = Finding(facts=["no dependency leads to a service that was taken away"])
    for control_set in evidence.registry.control_sets:
        services = evidence.registry.key("SYSTEM", f"{control_set}\\Services")
        for service in services.children() if services else []:
            start = evidence.registry.start_of(control_set, service.name)
            value = service.value("DependOnService")
            if start is None or start >= DISABLED or value is None:
                continue
            for needed in value.as_texts():
                state = evidence.registry.start_of(control_set, needed)
                is_ours = is_source_service(needed) or needed in _BLAMED_WHEN_MISSING
                if is_ours and state in {None, DISABLED}:
                    finding.problems.append(f"{control_set}: {service.name} depends on {needed}")
    return finding


def addresses(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Every interface takes its IPv4 address from DHCP; static IPv6 addresses are told."""
    finding = Finding(facts=["every interface takes its IPv4 address from DHCP"])
    current = evidence.registry.current_control_set
    finding.facts += [f"static IPv6 {one} stays" for one in static_ipv6(evidence.registry, current)]
    for control_set in evidence.registry.control_sets:
        path = f"{service_path(control_set, 'Tcpip')}\\Parameters\\Interfaces"
        key = evidence.registry.key("SYSTEM", path)
        for interface in key.children() if key else []:
            value = interface.value("EnableDHCP")
            if value is not None and value.as_number() == 0:
                finding.problems.append(
                    f"{control_set}: {interface.name} has a static IPv4 address"
                )
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


CHECKS = (
    Check("dependencies", dependencies),
    Check("addresses", addresses),
    Check("hives", hives_clean),
    Check("descriptors", descriptors),
)
