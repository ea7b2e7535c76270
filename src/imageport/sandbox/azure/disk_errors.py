"""What the disk store refuses with; both faces turn it into the answer of their own protocol."""

from __future__ import annotations


class DiskError(Exception):
    """A refusal: HTTP status, Azure's error code, and a message in Azure's words."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def unknown(disk_id: str) -> DiskError:
    """Say that there is no such disk or snapshot."""
    return DiskError(404, "ResourceNotFound", f"The Resource '{name_of(disk_id)}' was not found.")


def wrong_state(disk_id: str, state: str, verb: str) -> DiskError:
    """Say that the disk's state does not allow what was asked."""
    text = f"Cannot {verb} '{name_of(disk_id)}' because it is in the '{state}' state."
    return DiskError(409, "OperationNotAllowed", text)


def name_of(disk_id: str) -> str:
    """Return the last part of an ARM id."""
    return disk_id.rsplit("/", 1)[-1]
