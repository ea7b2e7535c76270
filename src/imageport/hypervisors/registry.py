"""The hypervisors this product knows: name → where the implementation is → what to install."""

from __future__ import annotations

from imageport.hypervisor import Hypervisor
from imageport.implementations import Implementation, implementation

HYPERVISORS: dict[str, Implementation] = {
    "memory": Implementation("imageport.hypervisors.memory", "MemoryHypervisor", ""),
    "vsphere": Implementation(
        "imageport.hypervisors.vsphere.hypervisor", "VsphereHypervisor", "pyvmomi"
    ),
    "xenserver": Implementation(
        "imageport.hypervisors.xenserver.hypervisor", "XenServerHypervisor", "XenAPI"
    ),
}


def hypervisor_class(name: str) -> type[Hypervisor]:
    """Return the class of a hypervisor; errors are those of `implementation`."""
    found: type[Hypervisor] = implementation("hypervisor", name, HYPERVISORS)
    return found
