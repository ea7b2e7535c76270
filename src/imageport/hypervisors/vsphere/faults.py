# References: vSphere Web Services API, "Faults".
"""What vCenter and its client answer with, as errors of this project."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Iterator

from pyVmomi import vim, vmodl

from imageport.errors import (
    HypervisorError,
    HypervisorLoginRefused,
    HypervisorRefused,
    HypervisorUnreachable,
    ImageportError,
    VmMissing,
)

_PASSING = (
    vim.fault.TaskInProgress,
    vim.fault.ConcurrentAccess,
    vim.fault.HostConnectFault,
    vim.fault.Timedout,
    vmodl.fault.HostCommunication,
    vmodl.fault.HostNotReachable,
    vmodl.fault.HostNotConnected,
    vmodl.fault.SystemError,
    vmodl.fault.RequestCanceled,
)
"""Faults that another attempt may not meet."""
_MESSAGE_CHARACTERS = 300


def error_of(fault: object, doing: str) -> HypervisorError:
    """Return the error of a fault; ``doing`` is ``take a snapshot of '/DC/vm/gold'``."""
    said = f"Cannot {doing}: {words_of(fault)}."
    if isinstance(fault, (vim.fault.InvalidLogin, vim.fault.NoClientCertificate)):
        return HypervisorLoginRefused(said)
    if isinstance(fault, vim.fault.NotAuthenticated):
        return HypervisorLoginRefused(said, hint="The session ended and could not be renewed.")
    if isinstance(fault, vim.fault.NoPermission):
        hint = f"Grant the privilege '{fault.privilegeId}' to the user; see docs/vsphere.md."
        return HypervisorRefused(said, hint=hint, privilege=str(fault.privilegeId))
    if isinstance(fault, vmodl.fault.ManagedObjectNotFound):
        return VmMissing(said)
    if isinstance(fault, _PASSING):
        return HypervisorUnreachable(said)
    return HypervisorRefused(said)


def words_of(fault: object) -> str:
    """Return what a fault says: its own words, or its name where it has none."""
    if fault is None:
        return "the server does not say why"
    name = type(fault).__name__.rsplit(".", maxsplit=1)[-1]
    if isinstance(fault, vim.fault.NoPermission):
        return f"the privilege '{fault.privilegeId}' is missing"
    said = str(getattr(fault, "msg", "") or "").strip().rstrip(".")
    return f"{said[:_MESSAGE_CHARACTERS]} ({name})" if said else name


@contextlib.contextmanager
def asking(doing: str, *, server: str) -> Iterator[None]:
    """Turn whatever the client raises into an error of this project."""
    try:
        yield
    except ImageportError:
        raise
    except vmodl.MethodFault as fault:
        raise error_of(fault, doing) from fault
    except (OSError, http.client.HTTPException) as error:
        cause = str(error) or type(error).__name__
        raise HypervisorUnreachable(
            f"Cannot {doing}: no answer from '{server}' ({cause[:_MESSAGE_CHARACTERS]})."
        ) from error
    except Exception as error:
        # pyVmomi trips over an answer that is no SOAP, or of another schema, in any way it likes.
        raise HypervisorUnreachable(
            f"Cannot {doing}: the answer of '{server}' makes no sense ({type(error).__name__})."
        ) from error
