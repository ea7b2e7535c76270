"""Images that lack something on Azure: what was stripped or hardened in the registry.

``OFFLINE_SAN`` and ``DVD_DISABLED`` are what preparing mends; the others must be refused, or fail
the verdict.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from imageport.sandbox.sample.hives import merge_text
from imageport.sandbox.sample.recipe import Variant

_SETS = ("ControlSet001", "ControlSet002")
_NETVSC = "VMBUS\\{f8615163-df3e-46c5-913f-f2d2f965ed0e}"
_STORVSC = "VMBUS\\{ba6163d9-04a1-4d29-b605-72e2ffb1dc7f}"


@dataclass(frozen=True, slots=True)
class _Fault:
    """A text to merge into one hive; with ``{set}`` it is merged for every control set."""

    hive: str
    text: str


_FAULTS: dict[Variant, _Fault] = {
    Variant.WITHOUT_NETVSC: _Fault("DRIVERS", f"[-\\DriverDatabase\\DeviceIds\\{_NETVSC}]"),
    Variant.WITHOUT_STORVSC: _Fault("SYSTEM", "[-\\{set}\\Services\\storvsc]"),
    Variant.WITHOUT_STORVSC_ID: _Fault("SYSTEM", f"[-\\DriverDatabase\\DeviceIds\\{_STORVSC}]"),
    Variant.WITHOUT_VPCI: _Fault("SYSTEM", "[-\\{set}\\Services\\vpci]"),
    Variant.WITHOUT_HOST_TIME: _Fault(
        "SYSTEM", "[-\\{set}\\Services\\W32Time\\TimeProviders\\VMICTimeProvider]"
    ),
    Variant.WITHOUT_DOTNET: _Fault("SOFTWARE", "[-\\Microsoft\\NET Framework Setup\\NDP\\v4]"),
    # What Windows Server sets up: disks on a shared bus stay offline.
    Variant.OFFLINE_SAN: _Fault(
        "SYSTEM", '[\\{set}\\Services\\partmgr\\Parameters]\n"SanPolicy"=dword:00000002'
    ),
    Variant.DVD_DISABLED: _Fault("SYSTEM", '[\\{set}\\Services\\cdrom]\n"Start"=dword:00000004'),
}


def break_for_azure(hives: Path, variant: Variant) -> None:
    """Break the hives in a folder as the variant says; nothing to do for the other variants."""
    fault = _FAULTS.get(variant)
    if fault is not None:
        texts = [fault.text.replace("{set}", name) for name in _SETS]
        merge_text(hives / fault.hive, "\n\n".join(dict.fromkeys(texts)))
