"""The steps of this group: ``BEFORE`` all but the first boot's folder, ``AFTER`` all others."""

from __future__ import annotations

from imageport.compose.step import Step
from imageport.compose.steps.own.apply_own_files import OwnStepsAfter, OwnStepsBefore
from imageport.compose.steps.own.stage_own_scripts import StageOwnScripts

BEFORE: tuple[Step, ...] = (OwnStepsBefore(),)
AFTER: tuple[Step, ...] = (StageOwnScripts(), OwnStepsAfter())
