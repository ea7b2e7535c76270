# References: vSphere Web Services API: SearchIndex, ContainerView, ManagedEntity, VirtualDevice.
"""Finds machines by path or name, and says what they are."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from pyVmomi import vim

from imageport.errors import HypervisorRefused, InputError, VmMissing
from imageport.hypervisor import Vm, VmDisk
from imageport.hypervisors.vsphere.session import Facts, VsphereSession
from imageport.hypervisors.vsphere.snapshots import snapshots_of

_FACTS = [
    "name", "parent", "config.instanceUuid", "config.firmware", "config.bootOptions",
    "config.hardware.device", "runtime.powerState", "snapshot",
]  # fmt: skip
_SHOWN = 20
"""Most places that a message lists."""
_DEPTH = 64
"""Folders above a machine; more is no tree."""
_ABOVE_IN_APP: dict[type, list[str]] = {
    vim.VirtualMachine: ["parentVApp"],
    vim.VirtualApp: ["parentVApp", "parentFolder"],
}
"""A machine in a vApp has no parent, and a vApp's is a resource pool: neither leads to the folders
that the path is made of."""


class Inventory:
    """What a session may see of a vCenter's inventory."""

    def __init__(self, session: VsphereSession) -> None:
        self._session = session
        self._references: dict[str, str] = {}
        """Machine's id → its reference, which another vCenter or a restore may change."""

    def find(self, path: str) -> Vm:
        """Return a machine by path (``/DC/vm/Folder/Name``) or by name.

        A slash inside a name is written ``%2f``, as vCenter stores it.
        """
        wanted = path.strip()
        if "/" in wanted:
            return self._facts(self._by_path(wanted))
        found = self._by_name(wanted)
        if not found:
            raise VmMissing(
                f"Cannot find machine '{wanted}': '{self._session.settings.location}' shows none "
                f"of that name to '{self._session.settings.username}'."
            )
        if len(found) > 1:
            places = ", ".join(f"'{self.path(one)}'" for one in found[:_SHOWN])
            raise InputError(f"Bad machine '{wanted}': found {places}, needed the path of one.")
        return self._facts(found[0])

    def reference(self, vm: Vm) -> Any:
        """Return the managed object of a machine that was found, perhaps by another run."""
        if vm.id not in self._references:
            content = self._session.content
            found = self._session.call(
                f"find '{vm.location}'",
                lambda: content.searchIndex.FindByUuid(None, vm.id, True, True),  # noqa: FBT003 - the client's
            )
            if not isinstance(found, vim.VirtualMachine):
                raise VmMissing(f"Cannot find '{vm.location}': it was deleted.")
            self._references[vm.id] = found._moId  # noqa: SLF001 - pyVmomi's documented way
        return self._session.managed(vim.VirtualMachine, self._references[vm.id])

    def path(self, one: Any) -> str:
        """Return the inventory path of an entity, from the root folder."""
        return "/" + "/".join(name for _, name in reversed(self._ancestry(one)))

    def datacenter(self, one: Any) -> tuple[Any, str]:
        """Return the datacenter above an entity and its path, as datastore URLs have it."""
        chain = self._ancestry(one)
        for index, (entity, _) in enumerate(chain):
            if isinstance(entity, vim.Datacenter):
                return entity, "/".join(name for _, name in reversed(chain[index:]))
        raise HypervisorRefused(f"Cannot find the datacenter of '{self.path(one)}'.")

    def _by_path(self, path: str) -> Any:
        names = [name for name in path.split("/") if name]
        found = self._at(names)
        if isinstance(found, vim.VirtualMachine):
            return found
        reached = 0
        while reached < len(names) - 1 and self._at(names[: reached + 1]) is not None:
            reached += 1
        shown = "/" + "/".join(names[:reached])
        if found is not None:
            kind = type(found).__name__.rsplit(".", maxsplit=1)[-1]
            raise VmMissing(f"Cannot find machine '{path}': it is a {kind}.")
        missing = names[reached] if names else ""
        raise VmMissing(
            f"Cannot find machine '{path}': '{shown}' is there, but '{missing}' is not in it."
        )

    def _at(self, names: list[str]) -> Any:
        content = self._session.content
        path = "/".join(names)
        return self._session.call(
            f"find '/{path}'", lambda: content.searchIndex.FindByInventoryPath(path)
        )

    def _by_name(self, name: str) -> list[Any]:
        content = self._session.content
        doing = f"find machine '{name}'"
        view = self._session.call(
            doing,
            lambda: content.viewManager.CreateContainerView(
                content.rootFolder,
                [vim.VirtualMachine],
                True,  # noqa: FBT003 - the client's
            ),
        )
        try:
            members = self._session.call(doing, lambda: list(view.view))
            named = self._session.read(doing, members, ["name"])
        finally:
            with contextlib.suppress(Exception):  # the view ends with the session anyway
                view.DestroyView()
        return [one for one, facts in named.items() if name in {facts.get("name"), _plain(facts)}]

    def _facts(self, one: Any) -> Vm:
        location = self.path(one)
        facts = self._session.read_one(f"look at '{location}'", one, _FACTS)
        if not facts.get("config.instanceUuid") or "config.hardware.device" not in facts:
            raise HypervisorRefused(
                f"Cannot look at '{location}': its configuration is not shown; either its files "
                f"are out of reach, or the user lacks the privilege 'System.Read' on it."
            )
        id_ = str(facts["config.instanceUuid"])
        self._references[id_] = one._moId  # noqa: SLF001 - pyVmomi's documented way
        return Vm(
            id=id_,
            name=str(facts["name"]),
            location=location,
            firmware="efi" if facts.get("config.firmware") == "efi" else "bios",
            is_running=facts.get("runtime.powerState") != vim.VirtualMachine.PowerState.poweredOff,
            disks=disks_of(facts["config.hardware.device"], facts.get("config.bootOptions")),
            snapshots=snapshots_of(facts.get("snapshot")),
        )

    def _ancestry(self, one: Any) -> list[tuple[Any, str]]:
        """Return (entity, name) from an entity upwards, without the root folder."""
        chain: list[tuple[Any, str]] = []
        root = self._session.content.rootFolder
        while one is not None and one != root and len(chain) < _DEPTH:
            above = [*_ABOVE_IN_APP.get(type(one), []), "parent"]
            facts = self._session.read_one("read the inventory", one, ["name", *above])
            chain.append((one, str(facts.get("name", "?"))))
            one = next((facts[name] for name in above if facts.get(name) is not None), None)
        return chain


def disks_of(devices: Iterable[Any], boot_options: Any) -> tuple[VmDisk, ...]:
    """Return a machine's disks in the order in which firmware meets them, one as boot disk.

    That is the first disk of the boot order; without one in it, the first by bus and unit.
    """
    known = {device.key: device for device in devices}
    disks = [device for device in known.values() if isinstance(device, vim.vm.device.VirtualDisk)]
    disks.sort(key=lambda disk: _position(known, disk))
    order = getattr(boot_options, "bootOrder", None) or []
    named = [
        entry.deviceKey
        for entry in order
        if isinstance(entry, vim.vm.BootOptions.BootableDiskDevice)
        and entry.deviceKey in {disk.key for disk in disks}
    ]
    boot = named[0] if named else disks[0].key if disks else None
    return tuple(
        VmDisk(
            key=str(disk.key),
            label=str(disk.deviceInfo.label if disk.deviceInfo else disk.key),
            size_bytes=size_of(disk),
            is_boot=disk.key == boot,
            place=str(getattr(disk.backing, "fileName", "") or ""),
        )
        for disk in disks
    )


def size_of(disk: Any) -> int:
    """Return a disk's size; the field in bytes is newer than the one in KiB."""
    return int(disk.capacityInBytes or disk.capacityInKB * 1024)


def _position(known: dict[int, Any], disk: Any) -> tuple[int, int, int]:
    controller = known.get(disk.controllerKey)
    bus = getattr(controller, "busNumber", 0) or 0
    return bus, disk.controllerKey or 0, disk.unitNumber or 0


def _plain(facts: Facts) -> str:
    """Return a name as clients show it: vCenter stores ``%2f`` for a slash."""
    return unquote(str(facts.get("name", "")))
