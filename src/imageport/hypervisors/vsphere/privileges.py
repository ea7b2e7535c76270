# References: vSphere Web Services API: AuthorizationManager.HasPrivilegeOnEntities; SDK Programming
# Guide: "Privilege Requirements for HTTP Access".
"""Asks by name for every privilege that an export needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from imageport.cloud import PermissionGap
from imageport.hypervisors.vsphere.session import VsphereSession


@dataclass(frozen=True, slots=True)
class Privilege:
    """One privilege, where it is needed, and what for."""

    id: str
    needed_for: str
    on_files: bool = False
    """Needed on datacenter and datastores; the others on the machine."""
    optional: bool = False
    only_for_own_snapshot: bool = False


PRIVILEGES = (
    Privilege("VApp.Export", "export"),
    Privilege("VirtualMachine.State.CreateSnapshot", "snapshot", only_for_own_snapshot=True),
    Privilege("VirtualMachine.State.RemoveSnapshot", "snapshot", only_for_own_snapshot=True),
    Privilege("VirtualMachine.Provisioning.DiskRandomRead", "changed areas", optional=True),
    Privilege("Datastore.Browse", "reading by ranges", on_files=True, optional=True),
    Privilege("Datastore.FileManagement", "reading by ranges", on_files=True, optional=True),
)
"""All that an export asks for, as docs/vsphere.md has it. Without the optional ones it streams the
whole disk."""


@dataclass(frozen=True, slots=True)
class Entities:
    """Where privileges are asked for."""

    location: str
    """The machine's, for messages."""
    machine: Any
    datacenter: Any


def missing_privileges(
    session: VsphereSession, where: Entities, *, takes_snapshot: bool
) -> list[PermissionGap]:
    """Return what the session's user lacks on the machine, its datacenter and its datastores."""
    doing = f"ask for the privileges on '{where.location}'"
    stores = session.read_one(doing, where.machine, ["datastore"]).get("datastore", [])
    needed = [one for one in PRIVILEGES if takes_snapshot or not one.only_for_own_snapshot]
    files = [where.datacenter, *stores]
    granted = _granted(session, doing, [where.machine, *files], [one.id for one in needed])
    names = session.read(doing, stores, ["name"])
    places = {where.machine: f"'{where.location}'", where.datacenter: "its datacenter"}
    places |= {store: f"datastore '{facts.get('name', '?')}'" for store, facts in names.items()}
    return [
        PermissionGap(
            action=one.id,
            needed_for=one.needed_for,
            found=f"not granted on {places.get(entity, 'one of its datastores')}",
            optional=one.optional,
        )
        for one in needed
        for entity in (files if one.on_files else [where.machine])
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
