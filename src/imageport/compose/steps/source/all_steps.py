"""The steps of this group, in the order they run."""

from __future__ import annotations

from imageport.compose.step import Step
from imageport.compose.steps.source.disable_vmware_services import DisableVmwareServices

STEPS: tuple[Step, ...] = (DisableVmwareServices(),)
