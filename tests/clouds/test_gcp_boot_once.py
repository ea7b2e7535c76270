"""The one boot: the composed disk as the boot disk of a machine that reaches nothing."""

from __future__ import annotations

from typing import Any

import pytest

from imageport.cloud import CloudDisk
from imageport.errors import CloudRefused, CloudUnavailable
from imageport.sandbox.gcp.account import BOOT_SUBNET, PROJECT, ZONE
from tests.clouds.boot_contract import DEADLINE_SECONDS, BootOnceContract
from tests.clouds.cloud_contract import disk_of
from tests.clouds.gcp_laboratory import GcpLab
from tests.clouds.machine_lab import ChooseGuest, MachineLab


class TestGcpBootOnce(BootOnceContract):
    @pytest.fixture
    def lab(self, gcp_lab: GcpLab) -> MachineLab:
        return gcp_lab

    def look(self, lab: MachineLab, machine: str) -> Any:
        assert isinstance(lab, GcpLab)
        name = machine.rsplit("/", maxsplit=1)[-1]
        return lab.clients.instances.get(project=PROJECT, zone=ZONE, instance=name)

    def check_alone(self, seen: Any) -> None:
        assert not seen.service_accounts
        assert not seen.scheduling.automatic_restart
        assert seen.scheduling.instance_termination_action == "STOP"
        assert seen.display_device.enable_display
        assert not seen.shielded_instance_config.enable_secure_boot
        [interface] = seen.network_interfaces
        assert not interface.access_configs
        assert (interface.nic_type, interface.stack_type) == ("VIRTIO_NET", "IPV4_ONLY")
        assert interface.subnetwork.endswith(BOOT_SUBNET)
        [disk] = seen.disks
        assert (disk.boot, disk.auto_delete, disk.mode) == (True, False, "READ_WRITE")

    @pytest.mark.slow
    def test_a_zone_without_room_is_named_with_the_machine_type(
        self, gcp_lab: GcpLab, guest: ChooseGuest
    ):
        guest("work")
        cloud = gcp_lab.cloud("run-1")
        disk = disk_of(cloud)
        gcp_lab.service.turn(missing_machine_types=["n2-standard-2"])
        with pytest.raises(CloudUnavailable) as caught:
            cloud.boot_once(disk, deadline_seconds=DEADLINE_SECONDS)
        assert f"n2-standard-2 is not to be had in {ZONE}" in caught.value.hint
        assert gcp_lab.only_disk_is_left(disk)

    @pytest.mark.slow
    def test_lost_answers_and_failed_operations_leave_nothing_twice(
        self, gcp_lab: GcpLab, guest: ChooseGuest
    ):
        guest("work")
        cloud = gcp_lab.cloud("run-1")
        disk = disk_of(cloud)
        before = gcp_lab.started()
        gcp_lab.service.turn(lost_answers=3, failed_operations=1)
        assert cloud.boot_once(disk, deadline_seconds=DEADLINE_SECONDS).stopped_by_itself
        assert len(gcp_lab.started() - before) == 1
        assert gcp_lab.only_disk_is_left(disk)


def test_a_tag_without_rules_boots_nothing(gcp_lab: GcpLab):
    cloud = gcp_lab.gcp_cloud("run-1", isolated_network_tag="quarantine")
    with pytest.raises(CloudRefused, match="Bad isolated_network_tag 'quarantine'"):
        cloud.boot_once(CloudDisk("x", 1, ""), deadline_seconds=1)
    assert gcp_lab.state.ledger.open_entries() == []
