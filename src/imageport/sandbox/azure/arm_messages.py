"""One request to the ARM face and its answer."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from imageport.sandbox.azure.arm_errors import ArmError

if TYPE_CHECKING:
    from imageport.sandbox.azure.operations import Operation

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class ArmRequest:
    """What a client asks, with the resource that its path names."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    action: str
    """What the credential has to be allowed, ``Microsoft.Compute/disks/read``."""
    scope: str
    """The ARM id that the action is asked for on."""
    names: dict[str, str] = field(default_factory=dict)
    """Parts of the path: group, name, location, operation."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Return the id under which a resource is kept: ids ignore case."""
        return self.scope.lower()

    @property
    def name(self) -> str:
        """Return the resource's name as it was written."""
        return self.names["name"]

    def json(self) -> Json:
        """Return the body; ArmError when it is no JSON object."""
        try:
            body = json.loads(self.body)
        except ValueError:
            body = None
        if not isinstance(body, dict):
            text = "The request content was invalid and could not be deserialized."
            raise ArmError(400, "InvalidRequestContent", text)
        return body


@dataclass(frozen=True, slots=True)
class ArmAnswer:
    """Status, document, and the operation that is still going on."""

    status: int = 200
    body: Json | None = None
    operation: Operation | None = None
    final_state: str = "resource"
    """Where a client finds the result: ``resource`` (only polls) or ``location``."""
