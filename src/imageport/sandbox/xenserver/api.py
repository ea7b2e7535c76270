# References: XenServer Management API, "Wire protocol for remote API calls"; xapi-project/xen-api,
# ocaml/xapi: xapi_session, rbac.
"""The XML-RPC side of a host: sessions, roles, getters, and the messages that change something."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from xmlrpc.client import Fault, dumps, loads

from imageport.sandbox.xenserver.failure import Failure
from imageport.sandbox.xenserver.machines import Machines
from imageport.sandbox.xenserver.records import Record, now
from imageport.sandbox.xenserver.roles import MESSAGES, permissions_of, roles_with

LOGIN = "session.login_with_password"
_GETTER = re.compile(r"(?P<kind>[A-Za-z]+)\.get_(?P<what>[A-Za-z_]+)")
_HIDDEN = {"permissions", "subject", "owner"}
"""Fields of this emulator that xapi's records do not have."""


class Api:
    """Answers calls; the caller holds the pool's lock."""

    def __init__(self, machines: Machines, users: dict[str, tuple[str, str]]) -> None:
        self._machines = machines
        self._records = machines.records
        self._users = users
        """Name: (password, role)."""

    def answer(self, body: bytes, *, coordinator: str = "") -> tuple[str, bytes]:
        """Return the method's name and the response; ``coordinator`` when this host is none."""
        parameters, method = loads(body)
        try:
            if coordinator:
                raise Failure("HOST_IS_SLAVE", coordinator)
            value = self._call(method or "", parameters)
        except Failure as failure:
            result = {"Status": "Failure", "ErrorDescription": failure.description}
        except TypeError as error:
            return method or "", dumps(Fault(1, str(error)), methodresponse=True).encode()
        else:
            result = {"Status": "Success", "Value": value}
        return method or "", dumps((result,), methodresponse=True, allow_none=False).encode()

    def _call(self, method: str, parameters: Sequence[Any]) -> Any:
        if method == LOGIN:
            return self._login(parameters)
        session, *rest = parameters or ("",)
        caller = self.session(str(session))
        message = MESSAGES.get(method)
        if message is None:
            return self._get(method, rest)
        check_permission(caller, method.lower())
        if len(rest) not in message.parameters:
            raise Failure(
                "MESSAGE_PARAMETER_COUNT_MISMATCH", method, str(message.parameters[0]),
                str(len(rest)),
            )  # fmt: skip
        if method == "session.logout":
            self._records.remove("session", str(session))
            return ""
        return self._machines.messages[method](caller, *rest)

    def session(self, ref: str) -> Record:
        """Return a session's record; SESSION_INVALID when it is none or has ended."""
        found = self._records.find("session", ref)
        if found is None:
            raise Failure("SESSION_INVALID", ref)
        return found

    def _login(self, parameters: Sequence[Any]) -> str:
        if len(parameters) not in {2, 3, 4}:
            raise Failure("MESSAGE_PARAMETER_COUNT_MISMATCH", LOGIN, "4", str(len(parameters)))
        user, password = str(parameters[0]), str(parameters[1])
        known = self._users.get(user)
        if known is None or known[0] != password:
            raise Failure("SESSION_AUTHENTICATION_FAILED", user, "Authentication failure")
        role, local = known[1], user == "root"
        if not role and not local:
            raise Failure("RBAC_PERMISSION_DENIED", "session.login_with_password", "no role")
        return self._records.add(
            "session", permissions=permissions_of("pool-admin" if local else role),
            rbac_permissions=[] if local else permissions_of(role), is_local_superuser=local,
            subject=user, auth_user_name="" if local else user, last_active=now(),
            originator=str(parameters[3]) if len(parameters) > 3 else "",
        )  # fmt: skip

    def _get(self, method: str, parameters: list[Any]) -> Any:
        match = _GETTER.fullmatch(method)
        if match is None or match["kind"] not in self._records.classes:
            raise Failure("MESSAGE_METHOD_UNKNOWN", method)
        kind, what = match["kind"], match["what"]
        if what in {"all", "all_records"}:
            _count(method, parameters, 0)
            found = self._records.all(kind)
            shown = {ref: _shown(record) for ref, record in found.items()}
            return shown if what == "all_records" else list(shown)
        _count(method, parameters, 1)
        value = str(parameters[0])
        if what == "by_uuid":
            return self._records.by_uuid(kind, value)
        if what == "by_name_label":
            found = self._records.all(kind)
            return [ref for ref, record in found.items() if record.get("name_label") == value]
        record = _shown(self._records.get(kind, value))
        if what == "record":
            return record
        if what not in record:
            raise Failure("MESSAGE_METHOD_UNKNOWN", method)
        return record[what]


def check_permission(caller: Record, permission: str) -> None:
    """Raise RBAC_PERMISSION_DENIED with the permission and the roles that have it."""
    if permission not in caller["permissions"]:
        raise Failure(
            "RBAC_PERMISSION_DENIED", permission,
            f"No permission in user session. (Roles with this permission: "
            f"{roles_with(permission)})",
        )  # fmt: skip


def _count(method: str, parameters: list[Any], needed: int) -> None:
    if len(parameters) != needed:
        raise Failure("MESSAGE_PARAMETER_COUNT_MISMATCH", method, str(needed), str(len(parameters)))


def _shown(record: Record) -> Record:
    return {name: value for name, value in record.items() if name not in _HIDDEN}
