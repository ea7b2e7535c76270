"""Starts and stops the emulated Azure subscription of an embedded site."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from imageport.sandbox.azure.knobs import Knobs
from imageport.sandbox.emulator_service import CloudService


class AzureService(CloudService):
    """One subscription in one process; disks, snapshots, groups and blobs stay in ``root``.

    Machines and their interfaces end with `stop`. A service that is started again on the same root
    has the same endpoint, unless somebody else took the port meanwhile.
    """

    title: ClassVar[str] = "Azure emulator"
    module: ClassVar[str] = "imageport.sandbox.azure.server"
    start_seconds: ClassVar[float] = 120.0
    """Its imports take 1 s of an idle core; seen to take 30 times as long on a busy machine."""

    def __init__(self, root: Path, **knobs: Any) -> None:
        super().__init__(root, Knobs(**knobs))

    def calls(self) -> list[str]:
        """Return every distinct action and data action that was asked for, sorted."""
        return list(self._ask("calls"))
