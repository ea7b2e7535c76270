"""A real vCenter engine with one master machine of two disks, looked at by the vendor's client."""

from __future__ import annotations

import random
import ssl
from pathlib import Path
from typing import Any

from pyVim.connect import Disconnect, SmartConnect
from pyVmomi import vim, vmodl

from imageport.hypervisors.vsphere.hypervisor import VsphereHypervisor
from imageport.hypervisors.vsphere.settings import VsphereSettings
from imageport.model import MIB
from imageport.sandbox.vcenter.knobs import Knobs
from imageport.sandbox.vcenter.machines import MasterDisk, MasterMachine
from imageport.sandbox.vcenter.service import VcenterService
from tests.hypervisors.hypervisor_contract import HypervisorLab

BOOT = MasterDisk("gold", unit=1, boot=True)
DATA = MasterDisk("data", unit=0)
GOLD = MasterMachine("gold", (DATA, BOOT))
PLAIN = MasterMachine("untracked", (MasterDisk("untracked"),), change_tracking=False)
_BOOT_BYTES = 8 * MIB + 3072
_DATA_BYTES = 2 * MIB


def _content() -> bytes:
    """Return 8 MiB, of which one is data that does not compress."""
    noise = random.Random(4)  # noqa: S311 - the same bytes every time
    disk = bytearray(_BOOT_BYTES)
    for start in (0, 5 * MIB):
        disk[start : start + MIB // 2] = noise.randbytes(MIB // 2)
    disk[-4096:] = noise.randbytes(4096)
    return bytes(disk)


def _write_sparsely(file: Path, data: bytes) -> None:
    with file.open("wb") as raw:
        raw.truncate(len(data))
        for start in range(0, len(data), 65536):
            piece = data[start : start + 65536]
            if any(piece):
                raw.seek(start)
                raw.write(piece)


class VsphereSite:
    """The running vCenter, for many tests."""

    def __init__(self, root: Path) -> None:
        self.service = VcenterService(root, (GOLD, PLAIN))
        self.content = bytearray(_content())
        for machine, disk, data in (
            (GOLD, BOOT, bytes(self.content)),
            (GOLD, DATA, b"\x77" * _DATA_BYTES),
            (PLAIN, PLAIN.disks[0], bytes(self.content[: 2 * MIB])),
        ):
            file = machine.flat_file(self.service.datastore, disk)
            file.parent.mkdir(parents=True, exist_ok=True)
            _write_sparsely(file, data)
        self.service.start()
        try:
            self._log_in()
            self._add_twins()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self.service.stop()

    def machine(self, name: str = GOLD.name) -> Any:
        self._renew()
        view = self._client.content.viewManager.CreateContainerView(
            self._client.content.rootFolder, [vim.VirtualMachine], recursive=True
        )
        found = next(one for one in view.view if one.name == name)
        view.DestroyView()
        return found

    def snapshots(self, name: str = GOLD.name) -> list[Any]:
        info = self._property(self.machine(name), "snapshot")
        found, waiting = [], list(info.rootSnapshotList if info else [])
        while waiting:
            found.append(waiting.pop(0))
            waiting.extend(found[-1].childSnapshotList)
        return found

    def _property(self, one: Any, name: str) -> Any:
        query = vmodl.query.PropertyCollector
        asked = query.FilterSpec(
            objectSet=[query.ObjectSpec(obj=one)],
            propSet=[query.PropertySpec(type=type(one), pathSet=[name])],
        )
        answer = self._client.content.propertyCollector.RetrieveContents([asked])
        return next((found.val for found in answer[0].propSet), None)

    def tidy(self) -> None:
        """Undo what a test turned and took."""
        self.service.turn(**vars_of(Knobs()))
        for name in (GOLD.name, PLAIN.name):
            while left := self.snapshots(name):
                self.service.remove_snapshot(name, left[-1].snapshot._moId)

    def _renew(self) -> None:
        try:
            alive = self._client.content.sessionManager.currentSession
        except vim.fault.NotAuthenticated:
            alive = None
        if alive is None:
            self._client._stub.DropConnections()
            self._log_in()

    def _log_in(self) -> None:
        context = ssl.create_default_context(cafile=str(self.service.ca_file))
        self._client = SmartConnect(
            host=self.service.host,
            port=self.service.port,
            user=self.service.username,
            pwd=self.service.password,
            sslContext=context,
        )

    def leave(self) -> None:
        Disconnect(self._client)

    def _add_twins(self) -> None:
        datacenter = self._client.content.rootFolder.childEntity[0]
        pool = datacenter.hostFolder.childEntity[0].resourcePool
        for place in ("east", "west"):
            folder = datacenter.vmFolder.CreateFolder(place)
            files = vim.vm.FileInfo(vmPathName=f"[masters] {place}/twin.vmx")
            config = vim.vm.ConfigSpec(name="twin", guestId="otherGuest", files=files)
            folder.CreateVm(config, pool)


def vars_of(knobs: Knobs) -> dict[str, Any]:
    return {name: getattr(knobs, name) for name in Knobs.__dataclass_fields__}


class VsphereLab(HypervisorLab):
    """One test's view of the vCenter."""

    path = "/" + GOLD.path.lstrip("/")
    twin_name = "twin"

    def __init__(self, site: VsphereSite) -> None:
        self.site = site
        self.service = site.service
        self.secret = site.service.password

    def settings(self, **changed: Any) -> VsphereSettings:
        given: dict[str, Any] = {
            "host": self.service.host,
            "port": self.service.port,
            "username": self.service.username,
            "password": self.service.password,
            "thumbprint": self.service.thumbprint,
        }
        return VsphereSettings(**{**given, **changed})

    def connect(self, **changed: Any) -> VsphereHypervisor:
        return VsphereHypervisor(self.settings(**changed))

    def content(self) -> bytes:
        return bytes(self.site.content)

    def write(self, offset_bytes: int, data: bytes) -> None:
        self.site.content[offset_bytes : offset_bytes + len(data)] = data
        key = next(
            device.key
            for device in self.site.machine().config.hardware.device
            if isinstance(device, vim.vm.device.VirtualDisk)
            and device.capacityInBytes == len(self.site.content)
        )
        self.service.guest_writes(GOLD.name, key, offset_bytes, data)

    def take_foreign_snapshot(self, name: str) -> None:
        self.site.machine().CreateSnapshot(name, "", memory=False, quiesce=False)
        for _ in range(100):
            if name in self.snapshot_names():
                return
        raise AssertionError(name)

    def snapshot_names(self) -> list[str]:
        return [one.name for one in self.site.snapshots()]

    def exports_under_way(self) -> int:
        return len(self.service.leases())

    def forget_snapshot(self, name: str) -> None:
        self.service.remove_snapshot(GOLD.name, name)

    def take_privilege_away(self) -> str:
        self.service.turn(denied=["VApp.Export"])
        return "VApp.Export"

    def cut_next_stream(self, after_bytes: int) -> None:
        self.service.turn(cuts=[after_bytes])
