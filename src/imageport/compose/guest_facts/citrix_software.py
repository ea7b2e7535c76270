"""Citrix' software in the guest: versions, and what provisioned the image until now."""

from __future__ import annotations

from dataclasses import dataclass

from imageport.compose.guest_paths import guest_path
from imageport.compose.hives.registry import Registry, service_path
from imageport.compose.volumes.file_version import file_version
from imageport.compose.volumes.guest_files import GuestFiles
from imageport.errors import EngineFailed

PVS_TARGET_PRODUCTS = ("provisioning target device", "provisioning services target device")
"""What its name among the products holds, lower-case: now, and until 7.15."""
_IDENTITY_AGENT = "PvsVmAgent"
_PVS_SERVICES = ("bnistack", "bnistack6", "BNDevice")
"""Any of them makes an image one of Provisioning Services."""
_PERSONALITY = "Personality.ini"
_MAX_PERSONALITY_BYTES = 65536


@dataclass(frozen=True, slots=True)
class CitrixFacts:
    """Versions, "" for what is not there; ``provisioned_by`` is ``pvs``, ``mcs`` or ""."""

    vda_version: str
    pvs_target_version: str
    machine_identity_version: str
    mcs_io_version: str
    provisioned_by: str


def citrix_facts(
    registry: Registry, files: GuestFiles, current: str, products: list[tuple[str, str]]
) -> CitrixFacts:
    """Return the facts; a product's own key counts more than the list of products."""
    vda = registry.text("SOFTWARE", "Citrix\\VirtualDesktopAgent", "ProductVersion")
    pvs = registry.text("SOFTWARE", "Citrix\\ProvisioningServices", "TargetDeviceVersion")
    return CitrixFacts(
        vda or _listed(products, "virtual delivery agent"),
        pvs or _listed(products, *PVS_TARGET_PRODUCTS),
        _identity_version(registry, files, current, products),
        _listed(products, "mcs io", "mcsio"),
        _provisioned_by(registry, files, current),
    )


def _identity_version(
    registry: Registry, files: GuestFiles, current: str, products: list[tuple[str, str]]
) -> str:
    """Return the version of the agent's own program; without its service there is no agent."""
    if registry.service(current, _IDENTITY_AGENT) is None:
        return ""
    image = registry.text("SYSTEM", service_path(current, _IDENTITY_AGENT), "ImagePath")
    known = file_version(files, guest_path(image)) if image else None
    return known.version if known else _listed(products, "machine identity service")


def _provisioned_by(registry: Registry, files: GuestFiles, current: str) -> str:
    if any(registry.service(current, name) is not None for name in _PVS_SERVICES):
        return "pvs"
    if "diskmode=" in _personality(files).replace("$diskmode=", ""):
        return "mcs"  # Provisioning Services writes the same names with a $ before them
    return "mcs" if registry.service(current, _IDENTITY_AGENT) is not None else ""


def _personality(files: GuestFiles) -> str:
    if not files.exists(_PERSONALITY):
        return ""
    try:
        data = files.read(_PERSONALITY, _MAX_PERSONALITY_BYTES)
    except EngineFailed:  # compressed in a way that NTFS' driver cannot read
        return ""
    return data.replace(b"\0", b"").decode("latin-1").lower()  # ANSI or UTF-16, by version


def _listed(products: list[tuple[str, str]], *words: str) -> str:
    return next((v for name, v in products if any(word in name.lower() for word in words)), "")
