# References: Compute Engine, "Operating system details" (Debian); "Image families".
"""Which machine image the engine runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from imageport.clouds.gcp.settings import GcpSettings

DEBIAN: Final = "projects/debian-cloud/global/images/family/debian-12"
"""Debian's own free images; python3 is in them, and their guest agent runs startup scripts."""


@dataclass(frozen=True, slots=True)
class EngineImage:
    """A machine image; ``laboratory`` means that packages are installed at boot."""

    source: str
    """An image, or a family, as requests name it."""
    laboratory: bool

    def __str__(self) -> str:
        return self.source.rsplit("/", maxsplit=1)[-1]


def find_engine_image(settings: GcpSettings) -> EngineImage:
    """Return the image or family of the settings, else Debian 12."""
    if settings.engine_image:
        return EngineImage(settings.engine_image, laboratory=False)
    return EngineImage(DEBIAN, laboratory=True)
