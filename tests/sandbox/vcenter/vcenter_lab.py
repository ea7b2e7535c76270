"""A small embedded vCenter for tests, asked by VMware's own client and by plain HTTP.

Recipe of ``gold``'s disk, 80 MiB and one sector long so that the last grain table and grain are
not full: random bytes at 0 (70,000) and across 32 MiB, text at 50 MiB + 1000, one sector of ``e``
at the end; all else is a hole.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import random
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from pyVmomi import SoapStubAdapter, vim
from pyVmomi.VmomiSupport import newestVersions

from imageport.errors import EngineFailed, MissingTool
from imageport.model import MIB
from imageport.sandbox.vcenter.machines import DATASTORE, MasterDisk, MasterMachine
from imageport.sandbox.vcenter.program import vcsim_program
from imageport.sandbox.vcenter.service import VcenterService

GOLD = MasterMachine("gold", (MasterDisk("gold", boot=True),), snapshots=("golden",))
TWO_DISKS = MasterMachine(
    "two-disks",
    (MasterDisk("data", controller="nvme"), MasterDisk("system", unit=1, boot=True)),
    change_tracking=False,
    powered_on=True,
)
GOLD_BYTES = 80 * MIB + 512
KEY = 2000
"""Device key of the disk at unit 0 of the first SCSI controller."""


def require_vcsim() -> None:
    """Skip where the embedded vCenter cannot be built, fail with CI=true."""
    missing = _cause_of_absence()
    if missing and os.environ.get("CI") == "true":
        pytest.fail(missing)
    if missing:
        pytest.skip(missing)


@functools.cache
def _cause_of_absence() -> str:
    try:
        vcsim_program()
    except (MissingTool, EngineFailed) as error:
        return str(error)
    return ""


def write_gold(path: Path) -> None:
    """Write the disk of the recipe above."""
    numbers = random.Random(5)  # noqa: S311 - repeatable on purpose
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.truncate(GOLD_BYTES)
        for offset, data in (
            (0, numbers.randbytes(70_000)),
            (32 * MIB - 3000, numbers.randbytes(6000)),
            (50 * MIB + 1000, b"text" * 50_000),
            (GOLD_BYTES - 512, b"e" * 512),
        ):
            file.seek(offset)
            file.write(data)


class VcenterLab:
    """A running vCenter and a client that is logged in."""

    def __init__(self, service: VcenterService) -> None:
        self.service = service
        self.trust = ssl.create_default_context(cafile=str(service.ca_file))
        self.client = self.log_in()

    @classmethod
    @contextlib.contextmanager
    def started(cls, root: Path, **knobs: Any) -> Iterator[Self]:
        """Start a vCenter with both machines; skips where there is no program."""
        require_vcsim()
        service = VcenterService(root, [GOLD, TWO_DISKS], **knobs)
        write_gold(GOLD.flat_file(service.datastore, GOLD.disks[0]))
        for disk in TWO_DISKS.disks:
            path = TWO_DISKS.flat_file(service.datastore, disk)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(MIB)
        with service:
            lab = cls(service)
            yield lab
            lab.log_out()

    def log_in(self) -> Any:
        """Return a new session's service instance."""
        stub = SoapStubAdapter(
            self.service.host, self.service.port,
            version=newestVersions.GetName("vim"), sslContext=self.trust,
        )  # fmt: skip
        client = vim.ServiceInstance("ServiceInstance", stub)
        try:
            manager = client.RetrieveContent().sessionManager
            manager.Login(self.service.username, self.service.password)
        except BaseException:
            stub.DropConnections()
            raise
        return client

    def log_out(self) -> None:
        """End the session; one that ended already is no error."""
        with contextlib.suppress(vim.fault.NotAuthenticated, OSError):
            self.content.sessionManager.Logout()
        self.client._stub.DropConnections()

    def log_in_again(self) -> None:
        """Take a new session in place of one that ended with the service."""
        self.client._stub.DropConnections()
        self.client = self.log_in()

    @property
    def content(self) -> Any:
        """Return the root of what a client sees."""
        return self.client.RetrieveContent()

    @property
    def cookie(self) -> str:
        """Return the session's cookie as a request sends it."""
        return str(self.client._stub.cookie).partition(";")[0]

    def vm(self, machine: MasterMachine = GOLD) -> Any:
        """Return a machine."""
        return self.content.searchIndex.FindByInventoryPath(machine.path)

    def golden(self) -> Any:
        """Return the snapshot that was there from the start."""
        return self.vm().snapshot.rootSnapshotList[0].snapshot

    def snapshot(self, name: str, machine: MasterMachine = GOLD) -> Any:
        """Take a snapshot and return it."""
        return ended(self.vm(machine).CreateSnapshot_Task(name, "", memory=False, quiesce=False))

    def remove(self, snapshot: Any) -> None:
        """Remove a snapshot."""
        ended(snapshot.RemoveSnapshot_Task(removeChildren=False))

    def ready_lease(self, snapshot: Any) -> Any:
        """Export a snapshot and wait for the lease."""
        lease = snapshot.ExportSnapshot()
        deadline = time.monotonic() + 20
        while lease.state == "initializing" and time.monotonic() < deadline:
            time.sleep(0.02)
        assert lease.state == "ready"
        return lease

    def url_of(self, lease: Any) -> str:
        """Return the path of the first disk's URL."""
        url = next(item.url for item in lease.info.deviceUrl if item.disk)
        return str(url).partition(f":{self.service.port}")[2]

    def folder_path(self, file: str, **other: str) -> str:
        """Return the path of a file of the datastore."""
        names = {"dcPath": "DC0", "dsName": DATASTORE, **other}
        return f"/folder/{file}?" + "&".join(f"{key}={value}" for key, value in names.items())

    def get(self, path: str, **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
        """Return status, body and headers; what came of a body that was cut."""
        connection = http.client.HTTPSConnection(
            self.service.host, self.service.port, context=self.trust, timeout=30
        )
        try:
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            try:
                body = answer.read()
            except http.client.IncompleteRead as error:
                body = error.partial
            return answer.status, body, answer.headers
        finally:
            connection.close()


def ended(task: Any) -> Any:
    """Wait for a task and return its result; raises its fault."""
    deadline = time.monotonic() + 20
    while task.info.state not in {"success", "error"} and time.monotonic() < deadline:
        time.sleep(0.02)
    if task.info.error is not None:
        raise task.info.error
    return task.info.result


def disk_of(holder: Any, key: int = KEY) -> Any:
    """Return a disk of a machine or a snapshot by its device key."""
    return next(item for item in holder.config.hardware.device if item.key == key)
