# References: Azure REST API, "Error responses" (ARM RPC: common API contracts, error response).
"""What the ARM face refuses with, in Azure's words."""

from __future__ import annotations

from typing import Any

CLIENT = "imageport-sandbox"


class ArmError(Exception):
    """A refusal: HTTP status, Azure's error code, message, and what else the answer carries."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str = "",
        details: tuple[dict[str, str], ...] = (),
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.target = target
        self.details = details
        self.headers = headers

    def document(self) -> dict[str, Any]:
        """Return the ``error`` document."""
        error: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target:
            error["target"] = self.target
        if self.details:
            error["details"] = list(self.details)
        return error


def not_found(arm_id: str) -> ArmError:
    """Say that there is no such resource."""
    parts = arm_id.split("/")
    name = "/".join(parts[6:])
    text = f"The Resource '{name}' under resource group '{parts[4]}' was not found."
    return ArmError(404, "ResourceNotFound", text)


def missing_reference(arm_id: str, by: str) -> ArmError:
    """Say that something that a resource of the network refers to does not exist."""
    text = (
        f"Resource {arm_id} referenced by resource {by} was not found. Please make sure that the "
        "referenced resource exists, and that both resources are in the same region."
    )
    return ArmError(400, "InvalidResourceReference", text)


def bad_parameter(target: str, message: str) -> ArmError:
    """Say that a value is not one that the service accepts."""
    return ArmError(400, "InvalidParameter", message, target=target)


def required(target: str) -> ArmError:
    """Say that a property is missing."""
    return bad_parameter(target, f"Required parameter '{target}' is missing (null).")


def not_allowed(message: str) -> ArmError:
    """Say that the state of things does not allow an operation."""
    return ArmError(409, "OperationNotAllowed", message)


def change_not_allowed(name: str) -> ArmError:
    """Say that a property cannot be changed once the resource exists."""
    text = f"Changing property '{name}' is not allowed."
    return ArmError(409, "PropertyChangeNotAllowed", text, target=name)


def forbidden(action: str, scope: str) -> ArmError:
    """Say which action the credential lacks, and where."""
    text = (
        f"The client '{CLIENT}' with object id '{CLIENT}' does not have authorization to perform "
        f"action '{action}' over scope '{scope}' or the scope is invalid. If access was recently "
        "granted, please refresh your credentials."
    )
    return ArmError(403, "AuthorizationFailed", text)


def linked_forbidden(held: tuple[str, str], action: str, scope: str) -> ArmError:
    """Say which action on another resource the credential lacks; ``held`` is what it has."""
    text = (
        f"The client '{CLIENT}' with object id '{CLIENT}' has permission to perform action "
        f"'{held[0]}' on scope '{held[1]}'; however, it does not have permission to perform "
        f"action(s) '{action}' on the linked scope(s) '{scope}' (respectively) or the linked "
        "scope(s) are invalid."
    )
    return ArmError(403, "LinkedAuthorizationFailed", text)
