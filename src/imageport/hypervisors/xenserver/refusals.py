# References: xapi-project/xen-api, ocaml/idl/datamodel_errors.ml; XenServer Management API,
# "API errors".
"""What xapi's error codes mean here."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from imageport.errors import (
    ExportInterrupted,
    HypervisorError,
    HypervisorLoginRefused,
    HypervisorRefused,
    HypervisorUnreachable,
    VmMissing,
)

_LOGIN: Final = {
    "SESSION_AUTHENTICATION_FAILED", "USER_IS_NOT_LOCAL_SUPERUSER", "AUTH_SERVICE_ERROR",
    "AUTH_ALREADY_DISABLED", "AUTH_DISABLE_FAILED_PERMISSION_DENIED",
}  # fmt: skip
_MISSING: Final = {"HANDLE_INVALID", "UUID_INVALID", "VDI_MISSING"}
_AWAY: Final = {
    "HOST_STILL_BOOTING", "HOST_OFFLINE", "HOST_NOT_LIVE", "HOST_IN_EMERGENCY_MODE",
    "CANNOT_CONTACT_HOST", "HOST_IS_SLAVE", "TOO_MANY_PENDING_TASKS",
}  # fmt: skip
_FINAL_IN_EXPORTS: Final = {
    "RBAC_PERMISSION_DENIED", "VDI_TOO_LARGE", "SR_OPERATION_NOT_SUPPORTED", "LICENCE_RESTRICTION",
    "MESSAGE_METHOD_UNKNOWN", "MESSAGE_PARAMETER_COUNT_MISMATCH", "FEATURE_RESTRICTED",
    "VDI_INCOMPATIBLE_TYPE", "VDI_HAS_NO_DATA", "VDI_NOT_MANAGED", "NOT_IMPLEMENTED",
}  # fmt: skip
"""An export that fails so fails again; after any other code trying again may help."""
_REFERENCE: Final = re.compile(r"(OpaqueRef:)[0-9A-Za-z-]+")
_SHOWN_CHARACTERS: Final = 300
_ROLE_HINT: Final = (
    "Give the user the role that docs/xenserver.md names, or sign in as one who has."
)


def refusal(description: Sequence[object], doing: str) -> HypervisorError:
    """Return the error for an API call that failed; ``doing`` is verb and object.

    Every reference is left out of the message: a session's is as good as the password.
    """
    code = _code(description)
    message = f"Cannot {doing}: XenServer says {shown(description)}."
    if code in _LOGIN:
        return HypervisorLoginRefused(message, xapi_code=code)
    if code in _MISSING:
        return VmMissing(message, xapi_code=code)
    if code in _AWAY:
        return HypervisorUnreachable(message, xapi_code=code)
    hint = _ROLE_HINT if code == "RBAC_PERMISSION_DENIED" else ""
    return HypervisorRefused(message, hint=hint, xapi_code=code)


def export_failure(description: Sequence[object], location: str) -> HypervisorError:
    """Return the error for an export whose task failed."""
    code = _code(description)
    if code in _FINAL_IN_EXPORTS or code in _MISSING:
        return refusal(description, f"export '{location}'")
    return ExportInterrupted(
        f"Cannot export '{location}': its task failed with {shown(description)}.", xapi_code=code
    )


def shown(description: Sequence[object]) -> str:
    """Return code and parameters for a message: bounded, printable, without references."""
    code, *rest = [_text(part) for part in description] or ["no reason"]
    text = f"{code} ({', '.join(rest)})" if rest else code
    text = _REFERENCE.sub(r"\1…", text)
    printable = "".join(sign if sign.isprintable() else " " for sign in text)
    cut = printable[:_SHOWN_CHARACTERS]
    return cut if len(printable) <= _SHOWN_CHARACTERS else f"{cut}…"


def _code(description: Sequence[object]) -> str:
    return _text(description[0]) if description else ""


def _text(part: object) -> str:
    """Return a part as it is; what is no text, by its kind: a list may be nested without end."""
    return part if isinstance(part, str) else type(part).__name__
