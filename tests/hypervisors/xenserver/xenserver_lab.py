"""A pool with a machine to export, for the tests of XenServer."""

from __future__ import annotations

from imageport.hypervisor import FrozenDisk
from imageport.hypervisors.xenserver.hypervisor import XenServerHypervisor
from imageport.hypervisors.xenserver.settings import XenServerSettings
from imageport.model import MIB
from imageport.sandbox.xenserver.pool import EmulatedPool, NewDisk
from imageport.sandbox.xenserver.records import NULL
from tests.hypervisors.hypervisor_contract import SNAPSHOT, HypervisorLab, received

USER = "exporter"
PASSWORD = "hunter2-and-3"
SIZE = 12 * MIB
CONTENT = [
    (0, b"boot sector"),
    (2 * MIB + 77, b"\x11" * 300_000),
    (6 * MIB, bytes(range(256)) * 4096),
    (SIZE - 512, b"last sector"),
]


class XenServerLab(HypervisorLab):
    """Two hosts; the machine's disk lies on the coordinator's local storage."""

    path = "/masters/gold"
    twin_name = "twin"
    secret = PASSWORD

    def __init__(self, pool: EmulatedPool, *, disk_host: int = 0) -> None:
        self.pool = pool
        disk = NewDisk(SIZE, CONTENT, bootable=True, name="gold system", host=disk_host)
        self.machine = pool.add_machine("gold", [disk], folder="/masters")
        for folder in ("/a", "/b"):
            pool.add_machine(self.twin_name, [NewDisk(MIB)], folder=folder)

    def connect(self, **changes: object) -> XenServerHypervisor:
        return XenServerHypervisor(self.settings(**changes))

    def settings(self, **changes: object) -> XenServerSettings:
        known: dict[str, object] = {
            "host": "127.0.0.1",
            "port": self.pool.port,
            "username": USER,
            "password": PASSWORD,
            "thumbprint": ",".join(host.certificate.thumbprint for host in self.pool.hosts),
        }
        return XenServerSettings(**(known | changes))  # type: ignore[arg-type]

    def freeze(self, link: XenServerHypervisor, name: str = SNAPSHOT) -> FrozenDisk:
        vm = link.find_vm(self.path)
        return link.freeze(vm, link.take_snapshot(vm, name), vm.disk())

    @property
    def disk(self) -> str:
        return self.pool.disk_of(self.machine)

    def content(self) -> bytes:
        record = self.pool.records.get("VDI", self.disk)
        return self.pool.disks.path(record["uuid"]).read_bytes()

    def write(self, offset_bytes: int, data: bytes) -> None:
        self.pool.write(self.disk, [(offset_bytes, data)])

    def take_foreign_snapshot(self, name: str) -> None:
        with self.pool.lock:
            self.pool.machines.snapshot({"subject": NULL, "permissions": []}, self.machine, name)

    def snapshot_names(self) -> list[str]:
        with self.pool.lock:
            snapshots = self.pool.records.get("VM", self.machine)["snapshots"]
            return [self.pool.records.get("VM", ref)["name_label"] for ref in snapshots]

    def exports_under_way(self) -> int:
        with self.pool.lock:
            return len(self.pool.records.all("task"))

    def forget_snapshot(self, name: str) -> None:
        caller = {"subject": NULL, "permissions": []}
        with self.pool.lock:
            for ref in list(self.pool.records.get("VM", self.machine)["snapshots"]):
                if self.pool.records.get("VM", ref)["name_label"] == name:
                    disk = self.pool.disk_of(ref)
                    self.pool.machines.destroy_machine(caller, ref)
                    self.pool.machines.destroy_disk(caller, disk)

    def take_privilege_away(self) -> str:
        with self.pool.lock:
            for session in self.pool.records.all("session").values():
                session["rbac_permissions"].remove("http/get_export_raw_vdi")
        return "http/get_export_raw_vdi"

    def cut_next_stream(self, after_bytes: int) -> None:
        self.pool.knobs.cuts.append(after_bytes)


def run(lab: XenServerLab, link: XenServerHypervisor) -> bytes:
    """Take a snapshot, export it and remove it whatever happens, as a workflow does."""
    vm = link.find_vm(lab.path)
    snapshot = link.take_snapshot(vm, SNAPSHOT)
    try:
        return received(link.open_stream(link.freeze(vm, snapshot, vm.disk())))
    finally:
        link.remove_snapshot(vm, snapshot)
