"""Verdict items that only Azure's machines ask for."""

from __future__ import annotations

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineJob
from imageport.compose.drivers.installed_drivers import infs_for
from imageport.compose.steps.boot.bring_disks_online import ONLINE_ALL, san_policy
from imageport.compose.steps.boot.enable_dvd_drive import DISABLED
from imageport.compose.verdict.evidence import Check, Evidence, Finding

_AGENT_SERVICES = ("RdAgent", "WindowsAzureGuestAgent")


def disks_online(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Windows brings a new disk online by itself."""
    finding = Finding()
    for control_set in evidence.registry.control_sets:
        policy = san_policy(evidence.registry, control_set)
        where = finding.facts if policy == ONLINE_ALL else finding.problems
        needed = "" if policy == ONLINE_ALL else f", needed {ONLINE_ALL}"
        where.append(f"{control_set}: SanPolicy is {policy}{needed}")
    return finding


def dvd_drive(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """The DVD drive's driver exists and may start."""
    finding = Finding()
    for control_set in evidence.registry.control_sets:
        start = evidence.registry.start_of(control_set, "cdrom")
        is_fine = start is not None and start != DISABLED
        where = finding.facts if is_fine else finding.problems
        where.append(f"{control_set}: cdrom Start is {start}")
    return finding


def faster_adapters(evidence: Evidence, _job: EngineJob, target: CloudTarget) -> Finding:
    """Told only: which Accelerated Networking adapters have a driver already."""
    finding = Finding()
    for hardware_id, name in target.faster_nic_ids:
        infs = ", ".join(inf for _, inf in infs_for(evidence.registry, hardware_id))
        what = f"served by {infs}" if infs else "no driver, the synthetic adapter carries it all"
        finding.facts.append(f"{name}, {hardware_id}: {what}")
    return finding


def vm_agent(evidence: Evidence, job: EngineJob, _target: CloudTarget) -> Finding:
    """Told only: whether the VM agent is there; its absence stops no machine."""
    current = evidence.registry.current_control_set
    starts = {name: evidence.registry.start_of(current, name) for name in _AGENT_SERVICES}
    there = [f"{name} Start {start}" for name, start in starts.items() if start is not None]
    if there:
        return Finding(facts=[f"installed: {', '.join(there)}"])
    chosen = job.options.azure_vm_agent
    return Finding(facts=[f"not installed; chosen: {chosen}" if chosen else "not chosen"])


_AZURE = ("azure",)
CHECKS = (
    Check("disks_online", disks_online, clouds=_AZURE),
    Check("dvd_drive", dvd_drive, clouds=_AZURE),
    Check("faster_adapters", faster_adapters, clouds=_AZURE),
    Check("vm_agent", vm_agent, clouds=_AZURE),
)
