"""Starts and stops the vCenter of an embedded site."""

from __future__ import annotations

import json
import secrets
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlencode

from imageport.sandbox.emulator_service import EmulatorService
from imageport.sandbox.processes import SERVICE_MARK
from imageport.sandbox.vcenter.certificate import ServerCertificate
from imageport.sandbox.vcenter.knobs import Knobs
from imageport.sandbox.vcenter.machines import DATASTORE, MasterMachine
from imageport.sandbox.vcenter.program import vcsim_program

USERNAME = "exporter@vsphere.local"
DATASTORE_FOLDER = "datastore"
"""Below the service's folder."""
_TEMPORARY = "tmp"
"""The simulator keeps a folder there, which a killed one leaves behind."""


class VcenterService(EmulatorService):
    """One vCenter in one process; its certificates, password and datastore stay in ``root``.

    Disks are files of `datastore` that exist before `start` (see `MasterMachine.flat_file`); they
    are the machines' own, so what a guest writes changes them. A service that is started again
    has the port that it had, and snapshots and sessions of their own.
    """

    title: ClassVar[str] = "vCenter emulator"
    start_seconds: ClassVar[float] = 60.0
    """Measured 0.3 s on an idle core."""
    short_lived: ClassVar[tuple[str, ...]] = (_TEMPORARY,)

    host = "127.0.0.1"
    username = USERNAME

    def __init__(self, root: Path, machines: Sequence[MasterMachine], **knobs: Any) -> None:
        super().__init__(root, Knobs(**knobs))
        self.machines = tuple(machines)
        self.port = 0
        self.datastore = self._root / DATASTORE_FOLDER
        self.datastore.mkdir(parents=True, exist_ok=True)
        self.certificate = ServerCertificate(self._root / "certificates")
        self.password = _kept(self._root / "password", secrets.token_urlsafe(12))
        self._instance_uuid = _kept(self._root / "instance-uuid", str(uuid.uuid4()))

    @property
    def thumbprint(self) -> str:
        """Return the SHA-256 of the certificate that it shows."""
        return self.certificate.thumbprint

    @property
    def ca_file(self) -> Path:
        """Return the authority that signed it."""
        return self.certificate.ca_file

    def start(self) -> None:
        """Start the process and wait until it answers; builds the program when that is missing."""
        self._program = vcsim_program()
        self.certificate.make_missing()
        inventory = {
            "instance_uuid": self._instance_uuid,
            "datastore": DATASTORE,
            "machines": [machine.as_json() for machine in self.machines],
        }
        (self._root / "inventory.json").write_text(json.dumps(inventory, indent=1))
        (self._root / _TEMPORARY).mkdir(exist_ok=True)
        super().start()
        self.port = int(self._ask("about")["address"].rpartition(":")[2])

    def leases(self) -> list[dict[str, Any]]:
        """Return id, snapshot and state of every export lease that is open."""
        return list(self._ask("leases"))

    def expire_leases(self) -> int:
        """End all open leases as their time-out would; return how many there were."""
        return int(self._ask("expire-leases", b""))

    def expire_sessions(self) -> int:
        """Log everyone out as the idle time would; return how many were logged in."""
        return int(self._ask("expire-sessions", b""))

    def remove_snapshot(self, machine: str, snapshot: str) -> None:
        """Remove a snapshot as an administrator might do meanwhile."""
        asked = {"machine": machine, "snapshot": snapshot}
        self._ask("remove-snapshot", json.dumps(asked).encode())

    def guest_writes(self, machine: str, key: int, offset: int, data: bytes) -> None:
        """Write to a disk, by its device key, as the guest would."""
        query = urlencode({"machine": machine, "key": key, "offset": offset})
        self._ask(f"write?{query}", data)

    def change_certificate(self) -> None:
        """Show another certificate of the same authority from now on."""
        self.certificate.renew()
        self._ask("read-certificate", b"")

    def _command(self) -> list[str]:
        return [
            str(self._program),
            f"-root={self._root}",
            f"-datastore={self.datastore}",
            f"-inventory={self._root / 'inventory.json'}",
            f"-certificate={self.certificate.certificate_file}",
            f"-key={self.certificate.key_file}",
            f"-listen={self.host}:{self.port}",
            f"-knobs={self.knobs.to_json()}",
        ]

    def _environment(self) -> dict[str, str]:
        return {
            **super()._environment(),
            SERVICE_MARK: str(self._root),
            "VCENTER_USER": self.username,
            "VCENTER_PASSWORD": self.password,
            "TMPDIR": str(self._root / _TEMPORARY),
        }


def _kept(path: Path, value: str) -> str:
    """Return what the file holds; the first time, ``value``."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(value)
    return path.read_text()
