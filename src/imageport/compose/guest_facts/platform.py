"""Where the guest ran until now, and whose guest tools are in it."""

from __future__ import annotations

from dataclasses import dataclass

from imageport.compose.hives.registry import Registry

_MAKERS = {
    "vmware": "vmware",
    "xen": "xenserver",
    "citrix": "xenserver",
    "nutanix": "nutanix",
    "parallels": "parallels",
    "red hat": "kvm",
    "qemu": "kvm",
}
"""Words of SystemManufacturer."""


@dataclass(frozen=True, slots=True)
class _Tools:
    """How a platform's guest tools show: by a service of theirs, or as an installed product."""

    platform: str
    services: tuple[str, ...]
    products: tuple[str, ...]
    """Beginnings of names, in lower case."""


_TOOLS = (
    _Tools("vmware", ("VMTools", "vmci", "pvscsi"), ("vmware tools",)),
    _Tools(
        "xenserver",
        ("XenSvc", "xenbus", "xenfilt", "xenevtchn"),
        ("citrix vm tools", "xenserver vm tools", "citrix xentools", "xcp-ng windows"),
    ),
    _Tools("nutanix", ("Nutanix Guest Agent",), ("nutanix virtio", "nutanix guest tools")),
    _Tools("parallels", ("prl_strg", "prl_tg"), ("parallels tools",)),
    _Tools(
        "kvm",
        ("QEMU-GA", "BalloonService", "spice-agent", "viostor", "rhelscsi"),
        ("qemu guest agent", "virtio-win"),
    ),
)
_XEN_OF_AWS = "aws pv drivers"
"""Amazon's drivers for its old machines have the names of Citrix'."""


def source_platform(registry: Registry, tools: tuple[str, ...]) -> str:
    """Return the platform that the machine's own description names, else that of its tools."""
    config = registry.text("SYSTEM", "HardwareConfig", "LastConfig")
    place = f"HardwareConfig\\{config}"
    maker = registry.text("SYSTEM", place, "SystemManufacturer").lower()
    product = registry.text("SYSTEM", place, "SystemProductName").lower()
    if "microsoft" in maker and "virtual machine" in product:
        return "hyperv"
    for word, platform in _MAKERS.items():
        if word in maker:
            return platform
    return tools[0] if tools else "none"


def source_tools(
    registry: Registry, current: str, products: list[tuple[str, str]]
) -> tuple[str, ...]:
    """Return the platforms of which something is installed; Hyper-V's are a part of Windows."""
    names = [name.lower() for name, _ in products]
    return tuple(tools.platform for tools in _TOOLS if _is_there(registry, current, names, tools))


def _is_there(registry: Registry, current: str, names: list[str], tools: _Tools) -> bool:
    if any(name.startswith(tools.products) for name in names):
        return True
    if tools.platform == "xenserver" and any(name.startswith(_XEN_OF_AWS) for name in names):
        return False
    return any(registry.service(current, service) is not None for service in tools.services)
