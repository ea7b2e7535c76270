# References: vSphere Web Services API: HttpNfcLease, VirtualMachineSnapshot.ExportSnapshot.
"""An export lease: kept alive while its disk is read, and ended exactly once."""

from __future__ import annotations

import contextlib
import hashlib
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from pyVmomi import vim

from imageport.errors import (
    CertificateRefused,
    ExportInterrupted,
    HypervisorRefused,
    HypervisorUnreachable,
    ImageportError,
    InputError,
)
from imageport.hypervisor import FrozenDisk
from imageport.hypervisors.tls_trust import TlsTrust
from imageport.hypervisors.vsphere.faults import error_of
from imageport.hypervisors.vsphere.session import VsphereSession

_READY_SECONDS = 300.0
"""A host prepares a lease in seconds; where many exports wait for it, in minutes."""
_MOST_BEAT_SECONDS = 60.0
"""vCenter's own timeout is 300 s: four beats may be lost."""
_LEAST_BEAT_SECONDS = 0.05
_LAST_BEAT_SECONDS = 2.0
"""A beat under way is waited for so long: one that comes after the logout would log in again."""
_BEATS = 4
"""In one timeout of the lease."""
_CONTROLLER = re.compile(r"([A-Za-z]+Controller)(\d+):(\d+)$")


@dataclass(frozen=True, slots=True)
class LeaseUrl:
    """Where one disk of a lease is sent from."""

    key: str
    """What the manifest calls it."""
    host: str
    port: int
    target: str = field(repr=False)
    """Path and query; a secret, for it holds the ticket."""
    trust: TlsTrust
    expected_bytes: int
    """What the host thinks it will send; 0 when it does not say."""


class ExportLease:
    """A lease on the disks of a snapshot; whoever made it ends it."""

    def __init__(self, session: VsphereSession, frozen: FrozenDisk) -> None:
        self._session = session
        self._frozen = frozen
        self._doing = f"export '{frozen.location}'"
        self._ended = threading.Lock()
        self._is_open = True
        self._stop = threading.Event()
        self._beat: threading.Thread | None = None
        self._cause = ""
        snapshot = session.managed(vim.vm.Snapshot, frozen.snapshot.id)
        self._lease: Any = session.call(self._doing, snapshot.ExportSnapshot, repeats=False)
        try:
            self._info = self._wait()
        except BaseException:
            self.abort()
            raise

    @property
    def lost(self) -> str:
        """Say why the lease ended by itself; empty while it lives."""
        return self._cause

    def url(self, device: Any, devices: list[Any]) -> LeaseUrl:
        """Return where the disk ``device`` comes from; ``devices`` are those of the snapshot."""
        found = self._choose(self._disk_urls(), device, devices)
        parts = self._split(str(found.url))
        star = (parts.hostname or "*") == "*"
        settings = self._session.settings
        return LeaseUrl(
            key=str(found.key),
            host=settings.address if star else str(parts.hostname),
            port=parts.port or (settings.port if star else 443),
            target=parts.path + (f"?{parts.query}" if parts.query else ""),
            trust=self._trust(found, is_vcenter=star or parts.hostname == settings.address),
            expected_bytes=int(found.fileSize or 0),
        )

    def keep_alive(self, percent: Callable[[], int], lost: Callable[[], None]) -> None:
        """Begin to tell vCenter in good time how far we are; ``lost`` is called if it is over."""
        timeout = float(self._info.leaseTimeout or 0)
        pause = min(_MOST_BEAT_SECONDS, timeout / _BEATS) if timeout > 0 else _MOST_BEAT_SECONDS
        pause = max(pause, _LEAST_BEAT_SECONDS)
        self._beat = threading.Thread(
            target=self._keep, args=(percent, lost, pause), name="lease", daemon=True
        )
        self._beat.start()

    def manifest(self, url: LeaseUrl) -> Any:
        """Return what the host says it sent for a disk (``ManifestEntry``), or None."""
        try:
            entries = self._session.call(self._doing, self._lease.GetManifest) or []
        except ImageportError as error:
            raise ExportInterrupted(
                f"Cannot {self._doing}: the lease ended before its manifest was read "
                f"({error.message})."
            ) from error
        for entry in entries:
            if entry.key == url.key:
                return entry
        disks = [entry for entry in entries if entry.disk]
        return disks[0] if len(disks) == len(self._disk_urls()) == 1 else None

    def complete(self) -> None:
        """End a lease whose disk arrived; a lease that is over by then lost us nothing."""
        self._end(self._lease.Complete)

    def abort(self) -> None:
        """End a lease that is not wanted any more; does nothing once it was ended."""
        self._end(self._lease.Abort)

    def _end(self, how: Callable[[], Any]) -> None:
        self._stop.set()
        with self._ended:
            if not self._is_open:
                return
            self._is_open = False
        if self._beat is not None and self._beat is not threading.current_thread():
            self._beat.join(_LAST_BEAT_SECONDS)
        # One that cannot be ended now ends by itself after its timeout.
        with contextlib.suppress(ImageportError):
            self._session.call(self._doing, how)

    def _wait(self) -> Any:
        pause, deadline = 0.05, time.monotonic() + _READY_SECONDS
        while True:
            facts = self._session.read_one(self._doing, self._lease, ["state", "error"])
            state = facts.get("state")
            if state == vim.HttpNfcLease.State.ready:
                info = self._session.read_one(self._doing, self._lease, ["info"]).get("info")
                if info is not None:
                    return info
            if state == vim.HttpNfcLease.State.error:
                raise error_of(facts.get("error"), self._doing)
            if state == vim.HttpNfcLease.State.done:
                raise ExportInterrupted(
                    f"Cannot {self._doing}: somebody ended the lease before it was ready."
                )
            if time.monotonic() > deadline:
                raise HypervisorUnreachable(
                    f"Cannot {self._doing}: the lease is still '{state}' after "
                    f"{_READY_SECONDS:.0f} s."
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def _keep(self, percent: Callable[[], int], lost: Callable[[], None], pause: float) -> None:
        beaten = time.monotonic()
        timeout = pause * _BEATS
        while not self._stop.wait(pause):
            try:
                self._session.call(
                    self._doing, lambda: self._lease.Progress(max(0, min(100, percent())))
                )
                beaten = time.monotonic()
            except HypervisorUnreachable as error:
                # A network that comes back in time is no reason to give up.
                if not self._stop.is_set() and time.monotonic() - beaten > timeout:
                    self._lose(error.message, lost)
                    return
            except ImageportError as error:
                if not self._stop.is_set():
                    self._lose(error.message, lost)
                return

    def _disk_urls(self) -> list[Any]:
        """Return the lease's URLs without those of other files (NVRAM, TPM)."""
        return [one for one in self._info.deviceUrl or [] if one.disk is not False]

    def _lose(self, cause: str, lost: Callable[[], None]) -> None:
        self._cause = cause
        lost()

    def _choose(self, urls: list[Any], device: Any, devices: list[Any]) -> Any:
        """Return the URL of a disk: the only one, or that of its controller, bus and unit.

        A lease may leave out disks that the machine has: then its only one may be another's.
        """
        disks = [one for one in devices if isinstance(one, vim.vm.device.VirtualDisk)]
        if len(urls) == 1 and len(disks) <= 1:
            return urls[0]
        known = {one.key: one for one in devices}
        controller = known.get(device.controllerKey)
        wanted = (_class_name(controller), getattr(controller, "busNumber", 0), device.unitNumber)
        found = [one for one in urls if _place(str(one.key)) == wanted]
        if len(found) == 1:
            return found[0]
        raise HypervisorRefused(
            f"Cannot {self._doing}: of the lease's {len(urls)} disks none is surely this one "
            f"({wanted[0]}{wanted[1]}:{wanted[2]}).",
            hint="Detach the other disks from the master image, or export by ranges.",
        )

    def _split(self, url: str) -> SplitResult:
        with contextlib.suppress(ValueError):
            parts = urlsplit(url)
            _ = parts.port
            if parts.scheme == "https" and parts.path.startswith("/"):
                return parts
        raise HypervisorRefused(f"Cannot {self._doing}: the lease gives no https address.")

    def _trust(self, url: Any, *, is_vcenter: bool) -> TlsTrust:
        """Return the rule for a host: by what the trusted vCenter says of its certificate."""
        given = ""
        try:
            certificate = str(getattr(url, "sslCertificate", "") or "")
            if certificate:  # since vSphere 9: the whole certificate, not only its SHA-1
                given = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate)).hexdigest()
            given = given or str(url.sslThumbprint or "")
            if given:
                return TlsTrust.given(given)
        except (ValueError, InputError) as error:
            raise CertificateRefused(
                f"Cannot {self._doing}: what the lease gives as the host's certificate is none."
            ) from error
        if is_vcenter:
            return self._session.trust
        return TlsTrust(ca_file=self._session.settings.ca_file)


def _class_name(controller: Any) -> str:
    return type(controller).__name__.rsplit(".", maxsplit=1)[-1]


def _place(key: str) -> tuple[str, int, int] | None:
    """Return controller, bus and unit of ``/vm-12/ParaVirtualSCSIController0:0``."""
    found = _CONTROLLER.search(key)
    return (found[1], int(found[2]), int(found[3])) if found else None
