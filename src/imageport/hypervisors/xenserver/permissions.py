# References: xapi-project/xen-api, ocaml/idl: allowed_roles of each message; ocaml/xapi/rbac.ml:
# permissions are messages in lower case, HTTP handlers below "http/".
"""What a user must be allowed to do, asked by name from the session's own list."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from imageport.cloud import PermissionGap
from imageport.hypervisors.xenserver.connection import PoolConnection

EXPORT, SNAPSHOT, CLEAN_UP = "export", "snapshot", "clean-up"


@dataclass(frozen=True, slots=True)
class Need:
    """One permission, the stage that needs it and the lowest role that has it."""

    permission: str
    needed_for: str
    role: str
    optional: bool = False


NEEDS: Final = (
    Need("http/get_export_raw_vdi", EXPORT, "vm-admin"),
    Need("task.create", EXPORT, "read-only"),
    Need("task.cancel", EXPORT, "read-only"),
    Need("task.destroy", EXPORT, "read-only"),
    Need("task.set_status", CLEAN_UP, "read-only", optional=True),
    Need("vbd.unplug", CLEAN_UP, "vm-admin", optional=True),
    Need("vbd.destroy", CLEAN_UP, "vm-admin", optional=True),
    Need("vm.snapshot", SNAPSHOT, "vm-power-admin"),
    Need("vm.destroy", SNAPSHOT, "vm-admin"),
    Need("vdi.destroy", SNAPSHOT, "vm-admin"),
)


def permission_gaps(connection: PoolConnection, *, takes_snapshot: bool) -> list[PermissionGap]:
    """Return what the session may not do; the local superuser may do everything."""
    session = connection.session_id()
    doing = "ask for this session's permissions"
    if connection.flag("session.get_is_local_superuser", session, doing=doing):
        return []
    granted = set(connection.texts("session.get_rbac_permissions", session, doing=doing))
    return [
        PermissionGap(
            need.permission,
            need.needed_for,
            f"not granted; the role {need.role} has it",
            optional=need.optional,
        )
        for need in NEEDS
        if need.permission not in granted and (takes_snapshot or need.needed_for != SNAPSHOT)
    ]
