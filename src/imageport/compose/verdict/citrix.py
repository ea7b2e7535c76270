"""Verdict items about Citrix software."""

from __future__ import annotations

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineJob
from imageport.compose.inspection import pvs_target_version
from imageport.compose.verdict.evidence import Check, Evidence, Finding, startable

_PVS_SERVICES = (("BNDevice",), ("bnistack6", "bnistack"), ("CVhdMp", "CVhdBusP6"), ("CFsDep2",))
"""Device service, network stack, disk and file system filter; names differ by version."""


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
            problem = startable(evidence, control_set, names)
            if problem:
                finding.problems.append(f"{control_set}: {problem}")
    return finding


CHECKS = (Check("pvs_target", pvs_target),)
