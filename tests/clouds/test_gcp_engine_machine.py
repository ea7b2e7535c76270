"""The engine machine: made without an identity, fetches its job by signed URLs and ends itself."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.clouds.gcp.instances import console_text, describe_machine
from imageport.errors import CloudRefused, CloudUnavailable
from imageport.sandbox.gcp.account import ENGINE_IMAGE, PROJECT, ZONE
from tests.clouds.cloud_contract import disk_of
from tests.clouds.engine_contract import (
    DEADLINE_SECONDS,
    EngineMachineContract,
    MachineThatStaysContract,
    job,
)
from tests.clouds.gcp_laboratory import CALM, GcpLab
from tests.clouds.machine_lab import MachineLab


class TestGcpEngineMachine(EngineMachineContract, MachineThatStaysContract):
    @pytest.fixture
    def lab(self, gcp_lab: GcpLab) -> MachineLab:
        return gcp_lab

    def is_off(self, lab: MachineLab, machine: str) -> bool:
        assert isinstance(lab, GcpLab)
        account = lab.account("look")
        facts = describe_machine(account, machine)
        if facts is None or not facts.is_over:
            return False
        assert "imageport: engine ended with 0" in console_text(account, machine)
        return True

    def look(self, lab: MachineLab, machine: str) -> Any:
        assert isinstance(lab, GcpLab)
        name = machine.rsplit("/", maxsplit=1)[-1]
        rules = list(lab.clients.firewalls.list(project=PROJECT))
        return lab.clients.instances.get(project=PROJECT, zone=ZONE, instance=name), rules

    def check_bounds(self, seen: Any, *, installs: bool) -> None:
        machine, rules = seen
        assert not machine.service_accounts
        assert not machine.network_interfaces[0].access_configs
        assert not machine.scheduling.automatic_restart
        assert machine.scheduling.max_run_duration.seconds > DEADLINE_SECONDS
        assert machine.scheduling.instance_termination_action == "DELETE"
        assert [disk.auto_delete for disk in machine.disks] == [True, False]
        ours = [rule for rule in rules if set(rule.target_tags) & set(machine.tags.items)]
        [allowed] = [rule for rule in ours if rule.allowed]
        assert allowed.direction == "EGRESS"
        # Package mirrors speak plain HTTP; an engine image of one's own needs no packages.
        ports = ["443", "80"] if installs else ["443"]
        assert sorted(port for item in allowed.allowed for port in item.ports) == ports

    @pytest.mark.slow
    def test_a_machine_of_an_engine_image_needs_no_packages(self, gcp_lab: GcpLab):
        cloud = gcp_lab.gcp_cloud("run-1", engine_image=ENGINE_IMAGE)
        report, _, seen = self.run_and_look(gcp_lab, cloud, disk_of(cloud))
        assert report.ok
        self.check_bounds(seen, installs=False)

    @pytest.mark.parametrize(
        ("knobs", "error", "message"),
        [
            pytest.param(
                {"missing_machine_types": ["e2-standard-2"]},
                CloudUnavailable,
                r"e2-standard-2 is not to be had in europe-west3-a",
                marks=pytest.mark.slow,
            ),
            pytest.param(
                {"quotas": {"CPUS": 1}}, CloudRefused, r"Raise the quota", marks=pytest.mark.slow
            ),
        ],
    )
    def test_a_machine_that_cannot_be_had_says_what_to_do_and_leaves_nothing(
        self, gcp_lab: GcpLab, knobs: dict[str, Any], error: Any, message: str
    ):
        cloud = gcp_lab.cloud("run-1")
        disk = disk_of(cloud)
        gcp_lab.service.turn(**knobs)
        with pytest.raises(error, match=message):
            cloud.run_engine(disk, job(gcp_lab), deadline_seconds=DEADLINE_SECONDS)
        gcp_lab.service.turn(**CALM)
        assert gcp_lab.only_disk_is_left(disk)
