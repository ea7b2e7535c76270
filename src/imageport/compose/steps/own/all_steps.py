"""The steps of this group: ``BEFORE`` all but the first boot's folder, ``AFTER`` all others."""

from __future__ import annotations

from imageport.compose.step import Step

BEFORE: tuple[Step, ...] = ()
AFTER: tuple[Step, ...] = ()
