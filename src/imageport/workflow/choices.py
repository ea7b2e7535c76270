"""What the operator chose for the prepare stage."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from imageport.compose.contract import EngineOptions


class EnginePlace(StrEnum):
    """Where the compositing engine works; what it does is the same."""

    CLOUD = "cloud"
    """On a copy of the uploaded disk, in a machine on demand."""
    SITE = "site"
    """Beside the source image, before it is uploaded."""


@dataclass(frozen=True, slots=True)
class PrepareChoices:
    """The engine's options and how long its two long steps may take.

    The one boot may try its steps three times, 20 minutes each (the limit that Daisy's bootstrap
    has), with half an hour for firmware, Plug and Play and shutdown around them.
    """

    engine: EngineOptions = field(default_factory=EngineOptions)
    engine_deadline_seconds: float = 1800.0
    boot_deadline_seconds: float = 5400.0
