"""The steps of this group, in the order they run."""

from __future__ import annotations

from imageport.compose.step import Step
from imageport.compose.steps.drivers.install_drivers import InstallDrivers
from imageport.compose.steps.drivers.stage_drivers import StageDrivers

STEPS: tuple[Step, ...] = (InstallDrivers(), StageDrivers())
