"""Starts and stops the emulated Google Cloud project of an embedded site."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from imageport.sandbox.emulator_service import CloudService
from imageport.sandbox.gcp.account import FEDERATION_FILE, KEY_FILE
from imageport.sandbox.gcp.knobs import Knobs


class GcpService(CloudService):
    """One project in one process; objects, disks and images stay in ``root``.

    Machines end with `stop`, tokens with the process. A service that is started again on the same
    root has the same endpoint and keys, unless somebody else took the port meanwhile.
    """

    title: ClassVar[str] = "Google Cloud emulator"
    module: ClassVar[str] = "imageport.sandbox.gcp.server"
    start_seconds: ClassVar[float] = 120.0
    """Its imports take a second of an idle core, many times as long on a busy machine."""

    def __init__(self, root: Path, **knobs: Any) -> None:
        super().__init__(root, Knobs(**knobs))

    @property
    def credentials_file(self) -> Path:
        """Return the service account's key, as Google's own clients read it."""
        return self._root / KEY_FILE

    @property
    def federation_file(self) -> Path:
        """Return a configuration of workload identity federation that becomes the account."""
        return self._root / FEDERATION_FILE

    def calls(self) -> list[str]:
        """Return every distinct permission that a request needed, sorted."""
        return list(self._ask("calls")["permissions"])

    def requests(self) -> dict[str, dict[str, Any]]:
        """Return ``class`` (A, B, free), ``requests``, ``bytes_in``, ``bytes_out`` by method."""
        return dict(self._ask("calls")["requests"])

    def objects(self) -> list[dict[str, Any]]:
        """Return ``name``, ``size``, ``metadata`` and ``componentCount`` of all objects."""
        return list(self._ask("objects"))
