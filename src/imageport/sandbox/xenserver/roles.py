# References: xapi-project/xen-api, ocaml/idl/datamodel_roles.ml; datamodel.ml and datamodel_vm.ml,
# allowed_roles of each message.
"""Which role may do what, and how many parameters a message takes besides the session."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

ROLES: Final = (
    "read-only", "vm-operator", "vm-admin", "vm-power-admin", "pool-operator", "pool-admin",
)  # fmt: skip
"""Each may do what those before it may."""

EXPORT: Final = "http/get_export_raw_vdi"


@dataclass(frozen=True, slots=True)
class Message:
    """One message that is no plain getter."""

    role: str
    parameters: tuple[int, ...] = (1,)
    """How many it may have."""


MESSAGES: Final = {
    "VM.snapshot": Message("vm-power-admin", (2, 3)),
    "VM.destroy": Message("vm-admin"),
    "VDI.destroy": Message("vm-admin"),
    "VBD.unplug": Message("vm-admin"),
    "VBD.destroy": Message("vm-admin"),
    "task.create": Message("read-only", (2,)),
    "task.cancel": Message("read-only"),
    "task.destroy": Message("read-only"),
    "task.set_status": Message("read-only", (2,)),
    "session.logout": Message("read-only", (0,)),
}
EXTRA: Final = {
    EXPORT: "vm-admin",
    "task.destroy/any": "pool-operator",
    "task.cancel/any": "pool-operator",
}


def permissions_of(role: str) -> list[str]:
    """Return the permissions of a role as a session lists them: in lower case."""
    rank = ROLES.index(role)
    needed = {name.lower(): message.role for name, message in MESSAGES.items()} | EXTRA
    return sorted(name for name, lowest in needed.items() if ROLES.index(lowest) <= rank)


def roles_with(permission: str) -> str:
    """Return the roles that have a permission, for the message of a refusal."""
    return ", ".join(role for role in ROLES[::-1] if permission in permissions_of(role))
