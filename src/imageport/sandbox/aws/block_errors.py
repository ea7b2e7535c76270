# References: Amazon EBS direct APIs, service model 2019-11-02: exceptions and their reasons.
"""What the block servers refuse with: the exception's name, its reason, its HTTP status."""

from __future__ import annotations


class BlockRefusal(Exception):
    """An answer other than success; ``code`` is the exception's name in the service model."""

    code = "ValidationException"
    status = 400
    reason = ""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason or self.reason


class Invalid(BlockRefusal):
    """ValidationException."""

    reason = "INVALID_PARAMETER_VALUE"


class NotFound(BlockRefusal):
    """ResourceNotFoundException."""

    code = "ResourceNotFoundException"
    status = 404
    reason = "SNAPSHOT_NOT_FOUND"


class Conflict(BlockRefusal):
    """ConflictException: one client token, two different requests."""

    code = "ConflictException"
    status = 409


class SnapshotThrottled(BlockRefusal):
    """RequestThrottledException: the limit of one snapshot."""

    code = "RequestThrottledException"
    reason = "RESOURCE_LEVEL_THROTTLE"


class AccountThrottled(BlockRefusal):
    """ThrottlingException: the limit of the account; in no service model."""

    code = "ThrottlingException"


class Denied(BlockRefusal):
    """AccessDeniedException."""

    code = "AccessDeniedException"
    status = 403
    reason = "UNAUTHORIZED_ACCOUNT"


class ServerFailed(BlockRefusal):
    """InternalServerException."""

    code = "InternalServerException"
    status = 500
