"""A session that answers as a test has it, and the devices of a machine, without a vCenter."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyVmomi import vim, vmodl

from imageport.hypervisor import FrozenDisk, Vm, VmDisk, VmSnapshot
from imageport.hypervisors.vsphere.faults import error_of
from imageport.hypervisors.vsphere.settings import VsphereSettings
from imageport.model import MIB

SETTINGS = VsphereSettings(
    "vc.example", username="exporter", password="hidden", thumbprint="1" * 64
)
FROZEN = FrozenDisk(
    hypervisor_id="here",
    vm=Vm("id", "gold", "/DC/vm/gold", "efi", is_running=False, disks=(), snapshots=()),
    snapshot=VmSnapshot("snapshot-1", "imageport-1"),
    disk=VmDisk("2000", "Hard disk 1", 10 * MIB, is_boot=True),
    size_bytes=10 * MIB,
    change_id="52 a1 b2/7",
)


class Session:
    """Answers as a test has it, in the place of a `VsphereSession`."""

    def __init__(self, facts: dict[str, Any] | None = None, made: Any = None) -> None:
        self.settings = SETTINGS
        self.trust = SETTINGS.trust()
        self.facts = facts or {}
        self.made = made

    def managed(self, _kind: type, _reference: str) -> Any:
        return self.made

    def call(self, doing: str, work: Callable[[], Any], *, repeats: bool = True) -> Any:
        _ = repeats
        try:
            return work()
        except vmodl.MethodFault as fault:
            raise error_of(fault, doing) from fault

    def read_one(self, _doing: str, _one: Any, paths: list[str]) -> dict[str, Any]:
        return {path: self.facts[path] for path in paths if path in self.facts}


def device(
    kind: type, key: int, *, controller: int = 0, unit: int = 0, bus: int | None = None, **more: Any
) -> Any:
    made = kind(key=key, **more)
    if bus is None:
        made.controllerKey, made.unitNumber = controller, unit
    else:
        made.busNumber = bus
    return made


def disk(key: int, controller: int, unit: int, mode: str = "persistent", **backing: Any) -> Any:
    files = vim.vm.device.VirtualDisk.FlatVer2BackingInfo(
        diskMode=mode, **{"fileName": f"[store] gold/{key}.vmdk", **backing}
    )
    return device(
        vim.vm.device.VirtualDisk,
        key,
        controller=controller,
        unit=unit,
        capacityInKB=1024 * (key % 10 + 1),
        backing=files,
    )


SCSI = device(vim.vm.device.ParaVirtualSCSIController, 1000, bus=0)
