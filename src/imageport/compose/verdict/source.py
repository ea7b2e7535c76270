"""Verdict items about the platform that the image comes from."""

from __future__ import annotations

from imageport.compose.cloud_target import CloudTarget
from imageport.compose.contract import EngineJob
from imageport.compose.steps.source.disable_vmware_services import VMWARE_SERVICES
from imageport.compose.verdict.evidence import Check, Evidence, Finding

_DISABLED = 4


def vmware_idle(evidence: Evidence, _job: EngineJob, _target: CloudTarget) -> Finding:
    """Nothing of VMware Tools starts by itself."""
    finding = Finding(facts=["no service of VMware Tools starts by itself"])
    for control_set in evidence.registry.control_sets:
        for service in VMWARE_SERVICES:
            start = evidence.registry.start_of(control_set, service)
            if start is not None and start < _DISABLED - 1:
                finding.problems.append(f"{control_set}: {service} Start is {start}")
    return finding


CHECKS = (Check("vmware_idle", vmware_idle),)
