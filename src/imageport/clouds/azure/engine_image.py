"""Which machine image the engine runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from imageport.clouds.azure.settings import AzureSettings

DEBIAN: Final = {
    "publisher": "Debian",
    "offer": "debian-12",
    "sku": "12-gen2",
    "version": "latest",
}
"""Debian's own free offer, without a purchase plan (wiki.debian.org/Cloud/MicrosoftAzure)."""


@dataclass(frozen=True, slots=True)
class EngineImage:
    """A machine image; ``laboratory`` means that packages are installed at boot."""

    reference: dict[str, str]
    """``imageReference`` as Azure writes it."""
    laboratory: bool

    def __str__(self) -> str:
        return self.reference.get("id") or f"{DEBIAN['offer']} {DEBIAN['sku']}"


def find_engine_image(settings: AzureSettings) -> EngineImage:
    """Return the image of the settings (managed image or gallery version), else Debian 12."""
    if settings.engine_image_id:
        return EngineImage({"id": settings.engine_image_id}, laboratory=False)
    return EngineImage(dict(DEBIAN), laboratory=True)
