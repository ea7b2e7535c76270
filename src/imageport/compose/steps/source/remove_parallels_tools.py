"""Parallels Tools; its storage driver filters every disk."""

from __future__ import annotations

from typing import ClassVar

from imageport.compose.steps.source.remove_platform import RemovePlatform
from imageport.compose.steps.source.source_platform import SourcePlatform

PARALLELS = SourcePlatform(
    name="parallels",
    title="Parallels Tools",
    makers=("parallels",),
    services=("prl_*", "Parallels Tools*", "Parallels Coherence*", "netkvm"),
    has_emulated_disk=True,
    infs=("prl_*.inf", "netkvm.inf"),
    folders=(
        "Program Files/Parallels/Parallels Tools",
        "Program Files (x86)/Parallels/Parallels Tools",
        "ProgramData/Parallels",
        "ProgramData/Microsoft/Windows/Start Menu/Programs/Parallels",
    ),
    files=("prl_*", "prl*.dll", "netkvm*"),
    products=("Parallels Tools*",),
    software_keys=("Parallels\\Parallels Tools",),
    run_values=("Parallels Tools*",),
)


class RemoveParallelsTools(RemovePlatform):
    """Remove Parallels Tools, the filter under every disk first."""

    name: ClassVar[str] = "remove_parallels_tools"
    platform: ClassVar[SourcePlatform] = PARALLELS
