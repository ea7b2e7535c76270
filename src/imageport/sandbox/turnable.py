"""Settings of a running emulator that a test may turn."""

from __future__ import annotations

import json
import threading
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, Self

_COUNTING: Final = threading.Lock()


@dataclass(slots=True)
class Turnable:
    """Base of every emulator's knobs."""

    def turn(self, changes: dict[str, Any]) -> None:
        """Change some knobs; ValueError names those that do not exist."""
        unknown = set(changes) - {item.name for item in fields(self)}
        if unknown:
            raise ValueError(f"Bad knobs: found {', '.join(sorted(unknown))}, needed known ones.")
        for name, value in changes.items():
            setattr(self, name, value)

    def take(self, name: str) -> bool:
        """Use up one of a knob that counts faults, from any thread; False when none is left."""
        with _COUNTING:
            left = int(getattr(self, name))
            if left <= 0:
                return False
            setattr(self, name, left - 1)
            return True

    def to_json(self) -> str:
        """Return all knobs as one JSON document."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read what `to_json` wrote."""
        return cls(**json.loads(text))
