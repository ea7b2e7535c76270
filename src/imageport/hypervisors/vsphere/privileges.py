# References: vSphere Web Services API: AuthorizationManager.HasPrivilegeOnEntities, "Privileges".
"""Asks by name for every privilege that an export needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from imageport.cloud import PermissionGap
from imageport.hypervisor import Vm
from imageport.hypervisors.vsphere.session import VsphereSession


@dataclass(frozen=True, slots=True)
class Privilege:
    """One privilege, where it is needed, and what for."""

    id: str
    needed_for: str
    on_datastores: bool = False
    optional: bool = False
    only_for_own_snapshot: bool = False


PRIVILEGES = (
    Privilege("VApp.Export", "export"),
    Privilege("VirtualMachine.State.CreateSnapshot", "snapshot", only_for_own_snapshot=True),
    Privilege("VirtualMachine.State.RemoveSnapshot", "snapshot", only_for_own_snapshot=True),
    Privilege("VirtualMachine.Provisioning.DiskRandomRead", "changed areas", optional=True),
    Privilege("Datastore.Browse", "reading by ranges", on_datastores=True, optional=True),
    Privilege("Datastore.FileManagement", "reading by ranges", on_datastores=True, optional=True),
)
"""All that an export asks for, as docs/vsphere.md has it. Without the optional ones it streams the
whole disk."""


def missing_privileges(
    session: VsphereSession, machine: Any, vm: Vm, *, takes_snapshot: bool
) -> list[PermissionGap]:
    """Return what the session's user lacks on the machine and on its datastores."""
    doing = f"ask for the privileges on '{vm.location}'"
    stores = session.read_one(doing, machine, ["datastore"]).get("datastore", [])
    needed = [one for one in PRIVILEGES if takes_snapshot or not one.only_for_own_snapshot]
    granted = _granted(session, doing, [machine, *stores], [one.id for one in needed])
    names = session.read(doing, stores, ["name"])
    places = {machine: f"'{vm.location}'"}
    places |= {store: f"datastore '{facts.get('name', '?')}'" for store, facts in names.items()}
    return [
        PermissionGap(
            action=one.id,
            needed_for=one.needed_for,
            found=f"not granted on {places.get(entity, 'it')}",
            optional=one.optional,
        )
        for one in needed
        for entity in (stores if one.on_datastores else [machine])
        if (entity, one.id) not in granted
    ]


def _granted(
    session: VsphereSession, doing: str, entities: list[Any], ids: Iterable[str]
) -> set[tuple[Any, str]]:
    wanted = list(ids)
    manager = session.content.authorizationManager
    answers = session.call(
        doing, lambda: manager.HasPrivilegeOnEntities(entities, session.key, wanted)
    )
    return {
        (answer.entity, one.privId)
        for answer in answers or []
        for one in answer.privAvailability or []
        if one.isGranted
    }
