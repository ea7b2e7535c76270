"""The hypervisors this product knows: name → where the implementation is → what to install."""

from __future__ import annotations

import importlib
from dataclasses import dataclass

from imageport.errors import InputError, MissingTool
from imageport.hypervisor import Hypervisor


@dataclass(frozen=True, slots=True)
class HypervisorEntry:
    """One implementation of `imageport.hypervisor.Hypervisor`."""

    module: str
    class_name: str
    install: str
    """The Python package that brings the vendor's own client."""


HYPERVISORS: dict[str, HypervisorEntry] = {
    "memory": HypervisorEntry("imageport.hypervisors.memory", "MemoryHypervisor", ""),
    "vsphere": HypervisorEntry(
        "imageport.hypervisors.vsphere.hypervisor", "VsphereHypervisor", "pyvmomi"
    ),
    "xenserver": HypervisorEntry(
        "imageport.hypervisors.xenserver.hypervisor", "XenServerHypervisor", "XenAPI"
    ),
}


def hypervisor_class(name: str) -> type[Hypervisor]:
    """Return the class of a hypervisor, imported only now.

    Raises:
        InputError: no such hypervisor.
        MissingTool: the vendor's client is not installed.
    """
    entry = HYPERVISORS.get(name)
    if entry is None:
        known = ", ".join(sorted(HYPERVISORS))
        raise InputError(f"Bad hypervisor: found '{name}', needed one of {known}.")
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        raise MissingTool(
            f"Cannot use hypervisor '{name}': the Python package '{error.name}' is not installed.",
            hint=f"Install it: pip install {entry.install}",
        ) from error
    found: type[Hypervisor] = getattr(module, entry.class_name)
    return found
