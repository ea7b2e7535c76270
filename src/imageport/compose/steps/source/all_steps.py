"""The steps of this group, in the order they run."""

from __future__ import annotations

from imageport.compose.steps.source.remove_nutanix_tools import RemoveNutanixTools
from imageport.compose.steps.source.remove_old_virtio import RemoveOldVirtio
from imageport.compose.steps.source.remove_parallels_tools import RemoveParallelsTools
from imageport.compose.steps.source.remove_platform import RemovePlatform
from imageport.compose.steps.source.remove_vmware_tools import RemoveVmwareTools
from imageport.compose.steps.source.remove_xenserver_tools import RemoveXenserverTools
from imageport.compose.steps.source.source_platform import SourcePlatform, matches

STEPS: tuple[RemovePlatform, ...] = (
    RemoveVmwareTools(),
    RemoveXenserverTools(),
    RemoveNutanixTools(),
    RemoveParallelsTools(),
    RemoveOldVirtio(),
)
PLATFORMS: tuple[SourcePlatform, ...] = tuple(step.platform for step in STEPS)


def is_source_service(name: str) -> bool:
    """Say whether a service has a name that some platform's tools use."""
    return any(matches(name, platform.services) for platform in PLATFORMS)
