"""The steps of this group, in the order they run."""

from __future__ import annotations

from imageport.compose.step import Step
from imageport.compose.steps.citrix.point_vda_at_controllers import PointVdaAtControllers

STEPS: tuple[Step, ...] = (PointVdaAtControllers(),)
