"""Changes of a guest that tests of removal start from."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from imageport.sandbox.sample.hives import expand, merge_text
from imageport.sandbox.sample.portable_executable import minimal_pe

SETS = ("ControlSet001", "ControlSet002")
CATALOGUE = "Services\\WinSock2\\Parameters\\Protocol_Catalog9"


def merge(guest: Any, hive: str, text: str) -> None:
    """Change a hive of the guest; ``{set}`` is merged for every control set."""
    for name in SETS if "{set}" in text else ("",):
        merge_text(guest.hive(hive), expand(text.replace("{set}", name)))


def start_of(guest: Any, service: str) -> int | None:
    """Return a service's start type, None when there is no such service."""
    with ExitStack() as stack:
        return guest.registry(stack).start_of("ControlSet001", service)  # type: ignore[no-any-return]


def put_driver(guest: Any, name: str, company: str) -> None:
    """Put a driver of some maker where drivers lie."""
    place = guest.windows.root / "Windows/System32/drivers" / name
    place.write_bytes(minimal_pe(name, "10.0.1.0", company=company))
