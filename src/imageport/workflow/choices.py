"""What the operator chose for the prepare stage."""

from __future__ import annotations

from dataclasses import dataclass, field

from imageport.compose.contract import EngineOptions


@dataclass(frozen=True, slots=True)
class PrepareChoices:
    """The engine's options and how long its two long steps may take.

    The one boot waits for Plug and Play and may restart; an hour is three times what the slowest
    documented import took (Daisy's bootstrap limit is 20 minutes).
    """

    engine: EngineOptions = field(default_factory=EngineOptions)
    engine_deadline_seconds: float = 1800.0
    boot_deadline_seconds: float = 3600.0
