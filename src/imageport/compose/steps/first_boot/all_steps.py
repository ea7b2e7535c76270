"""The steps of this group, in the order they run: ``FIRST`` before all others, ``LAST`` after."""

from __future__ import annotations

from imageport.compose.step import Step
from imageport.compose.steps.first_boot.add_first_boot import AddFirstBoot, MakeFirstBootFolder
from imageport.compose.steps.first_boot.hold_services import HoldServices

FIRST: tuple[Step, ...] = (MakeFirstBootFolder(),)
LAST: tuple[Step, ...] = (HoldServices(), AddFirstBoot())
