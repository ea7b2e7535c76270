# References: XenServer Management API, classes pool, host, SR, PBD, VM.
"""A pool of hosts on this computer, with machines that a test puts there."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from imageport.sandbox.xenserver.api import Api
from imageport.sandbox.xenserver.certificate import HostCertificate
from imageport.sandbox.xenserver.exports import Exports
from imageport.sandbox.xenserver.host_server import HostServer
from imageport.sandbox.xenserver.knobs import Knobs
from imageport.sandbox.xenserver.machines import Machines
from imageport.sandbox.xenserver.records import LONG_AGO, NULL, Records
from imageport.sandbox.xenserver.storage import DiskFolder

PORT_TRIES = 20


@dataclass(frozen=True, slots=True)
class NewDisk:
    """A disk of a machine to be made; ``content`` is (offset, bytes)."""

    size_bytes: int
    content: Sequence[tuple[int, bytes]] = ()
    userdevice: str = "0"
    bootable: bool = False
    name: str = "disk"
    host: int = 0
    """Which host's local storage it lies on."""


class EmulatedPool:
    """Two hosts at 127.0.0.1 (the coordinator) and 127.0.0.2, on one port, as real ones are.

    ``users`` are name: (password, role); ``root`` may do everything, whatever its role.
    """

    def __init__(self, folder: Path, users: dict[str, tuple[str, str]]) -> None:
        self.knobs = Knobs()
        self.records = Records()
        self._folder = folder
        self.disks = DiskFolder(folder / "disks")
        self.lock = threading.RLock()
        self.machines = Machines(self.records, self.disks, self.knobs)
        api = Api(self.machines, users)
        self.exports = Exports(api, self.machines, self.lock)
        self.hosts = self._listen(api)
        self.port = self.hosts[0].server_port
        self._storage = self._describe()
        self._threads = [
            threading.Thread(target=host.serve_forever, args=(0.05,), daemon=True)
            for host in self.hosts
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for host, thread in zip(self.hosts, self._threads, strict=True):
            host.shutdown()
            host.server_close()
            thread.join()

    def _listen(self, api: Api) -> list[HostServer]:
        for _ in range(PORT_TRIES):
            first = self._host("127.0.0.1", 0, api)
            try:
                second = self._host("127.0.0.2", first.server_port, api)
            except OSError:
                first.server_close()  # taken at the other address: another port
                continue
            second.coordinator = "127.0.0.1"
            return [first, second]
        raise OSError("no port is free on both addresses")

    def _host(self, address: str, port: int, api: Api) -> HostServer:
        certificate = HostCertificate(self._folder, address)
        server = HostServer((address, port), certificate, api, self.exports)
        server.knobs, server.lock = self.knobs, self.lock
        return server

    def _describe(self) -> list[str]:
        """Make the records that every pool has; return the hosts' storage repositories."""
        storage: list[str] = []
        version = {"product_brand": "XenServer", "product_version": "8.4.0", "xapi": "26.1"}
        for number, server in enumerate(self.hosts):
            server.host_ref = self.records.add(
                "host", name_label=f"host-{number}", address=server.server_address[0],
                software_version=version,
            )  # fmt: skip
            sr = self.records.add("SR", name_label=f"Local storage {number}", type="ext")
            self.records.add("PBD", host=server.host_ref, SR=sr, currently_attached=True)
            storage.append(sr)
        self.records.add("pool", name_label="lab", master=self.hosts[0].host_ref)
        self._machine("Control domain on host: host-0", is_control_domain=True)
        return storage

    def _machine(self, name: str, **fields: Any) -> str:
        known: dict[str, Any] = {
            "name_description": "", "is_a_template": False, "is_a_snapshot": False,
            "is_control_domain": False, "snapshot_of": NULL, "snapshots": [], "VBDs": [],
            "snapshot_time": LONG_AGO, "power_state": "Halted", "other_config": {},
            "HVM_boot_policy": "BIOS order", "HVM_boot_params": {"order": "cd"},
            "domain_type": "hvm", "suspend_VDI": NULL, "resident_on": NULL,
        }  # fmt: skip
        return self.records.add("VM", name_label=name, **(known | fields))

    def add_machine(
        self, name: str, disks: Sequence[NewDisk], *, folder: str = "", **fields: Any
    ) -> str:
        """Make a machine with disks and an empty drive; return its reference."""
        with self.lock:
            other = {"folder": folder} if folder else {}
            ref = self._machine(name, other_config=other, **fields)
            drive = {"type": "CD", "mode": "RO", "empty": True, "userdevice": "3"}
            self.machines.attach(ref, NULL, drive)
            for disk in disks:
                vdi = self.add_disk(disk)
                where = {"userdevice": disk.userdevice, "bootable": disk.bootable}
                self.machines.attach(ref, vdi, where)
            return ref

    def add_disk(self, disk: NewDisk) -> str:
        """Make a disk that is attached to nothing."""
        with self.lock:
            vdi = self.records.add(
                "VDI", name_label=disk.name, virtual_size=str(disk.size_bytes),
                SR=self._storage[disk.host], type="user", is_a_snapshot=False, snapshot_of=NULL,
                snapshots=[], snapshot_time=LONG_AGO, VBDs=[], managed=True, sm_config={},
            )  # fmt: skip
            uuid = self.records.get("VDI", vdi)["uuid"]
            self.disks.create(uuid, disk.size_bytes)
            self.write(vdi, disk.content)
            return vdi

    def write(self, vdi: str, content: Sequence[tuple[int, bytes]]) -> None:
        """Write into a disk, as the guest does."""
        path = self.disks.path(self.records.get("VDI", vdi)["uuid"])
        with path.open("r+b") as file:
            for offset, data in content:
                file.seek(offset)
                file.write(data)

    def disk_of(self, machine: str, userdevice: str = "0") -> str:
        """Return the disk at a position of a machine or snapshot."""
        for ref in self.records.get("VM", machine)["VBDs"]:
            vbd = self.records.get("VBD", ref)
            if vbd["userdevice"] == userdevice and vbd["type"] == "Disk":
                return str(vbd["VDI"])
        raise LookupError(userdevice)

    def renew_certificate(self, host: int = 0) -> None:
        """Give a host another certificate."""
        server = self.hosts[host]
        server.certificate = HostCertificate(self._folder, str(server.server_address[0]))

    def end_sessions(self) -> None:
        """Forget all sessions, as a restarted toolstack does."""
        with self.lock:
            self.records.all("session").clear()

    def left_behind(self) -> list[str]:
        """Return what an export made and nobody removed: snapshots, disks, tasks, attachments."""
        with self.lock:
            found = [
                f"{kind} {record['name_label']}"
                for kind in ("VM", "VDI")
                for record in self.records.all(kind).values()
                if record["is_a_snapshot"]
            ]
            found += [
                f"task {task['name_label']} {task['status']}"
                for task in self.records.all("task").values()
            ]
            control = {ref for ref, vm in self.records.all("VM").items() if vm["is_control_domain"]}
            return found + [
                f"VBD {ref}" for ref, vbd in self.records.all("VBD").items() if vbd["VM"] in control
            ]
