# References: vSphere Web Services API: HttpNfcLease.ManifestEntry; VMware Virtual Disk Format 5.0.
"""A disk out of an export lease: a stream-optimized VMDK, hashed as it comes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

from imageport.errors import (
    BadDisk,
    ExportInterrupted,
    HypervisorRefused,
    HypervisorUnreachable,
    VerificationFailed,
)
from imageport.formats.disk_stream import DiskStream
from imageport.formats.vmdk_stream import VmdkStream
from imageport.hypervisor import FrozenDisk
from imageport.hypervisors.http_stream import ResponseStream, ask
from imageport.hypervisors.vsphere.lease import ExportLease
from imageport.hypervisors.vsphere.session import VsphereSession
from imageport.hypervisors.vsphere.snapshots import frozen_device
from imageport.model import MIB

_CHECKSUMS = ("sha1", "sha256")
"""What vCenter's manifests hold: SHA-1 from the beginning, others by name since 6.7."""
_COMPRESSION = 2
"""A guess for progress only: of what a stream will be when the host does not say."""
_MOST_BEHIND_BYTES = 64 * MIB
"""More after the stream's own end is no padding."""


class LeaseStream(DiskStream):
    """One disk of an export lease; ends the lease, whatever happens."""

    format_name = "vmdk-stream"

    def __init__(self, session: VsphereSession, frozen: FrozenDisk) -> None:
        self.location = frozen.location
        device, devices = frozen_device(session, frozen.vm, frozen.snapshot, frozen.disk)
        self._frozen = frozen
        self._lease = ExportLease(session, frozen)
        self._wire: _HashedStream | None = None
        try:
            self._url = self._lease.url(device, devices)
            self._wire = self._open(session)
            self._lease.keep_alive(self._percent, self._wire.interrupt)
            with self._lease_explains():
                self._vmdk = VmdkStream(self._wire)
            self._check_size()
        except BaseException:
            self.close()
            raise

    @property
    def size_bytes(self) -> int:
        """Return the size as the snapshot has it."""
        return self._frozen.size_bytes

    def pieces(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, bytes) as the grains come."""
        with self._lease_explains():
            yield from self._vmdk.pieces()

    def finish(self) -> str:
        """Compare size and checksum with the host's manifest, and complete the lease."""
        try:
            with self._lease_explains():
                said = [self._vmdk.finish(), self._compare()]
        except BaseException:
            self.close()
            raise
        self._lease.complete()
        self.close()
        return "; ".join(said)

    def close(self) -> None:
        """Give the lease up unless it was completed, and close the connection."""
        self._lease.abort()
        if self._wire is not None:
            self._wire.close()

    def _open(self, session: VsphereSession) -> _HashedStream:
        url = self._url
        connection = session.connect(url.host, url.port, url.trust)
        try:
            response = ask(connection, "GET", url.target, {}, server=connection.server)
        except HypervisorUnreachable as error:
            raise HypervisorUnreachable(
                f"Cannot export '{self.location}' from its host: {error.message}"
            ) from error
        if response.status != 200:
            connection.close()
            said = f"Cannot export '{self.location}': its host answers {response.status}."
            if response.status == 404 or response.status >= 500:
                raise ExportInterrupted(said)  # the lease ended meanwhile, or the host is busy
            raise HypervisorRefused(said)
        return _HashedStream(ResponseStream(connection, response, self.location))

    @contextlib.contextmanager
    def _lease_explains(self) -> Iterator[None]:
        """Name the lease's end as the cause where the stream broke for it."""
        try:
            yield
        except (BadDisk, ExportInterrupted) as error:
            if self._lease.lost:
                raise ExportInterrupted(
                    f"Cannot go on exporting '{self.location}': the lease is lost "
                    f"({self._lease.lost})."
                ) from error
            raise

    def _check_size(self) -> None:
        if self._vmdk.size_bytes != self._frozen.size_bytes:
            raise VerificationFailed(
                f"Bad export of '{self.location}': found a disk of {self._vmdk.size_bytes} bytes, "
                f"needed {self._frozen.size_bytes}."
            )

    def _percent(self) -> int:
        expected = self._url.expected_bytes or self._frozen.size_bytes // _COMPRESSION
        received = self._wire.received_bytes if self._wire is not None else 0
        return min(99, received * 100 // max(expected, 1))

    def _compare(self) -> str:
        """Compare what came with what the host says it sent."""
        wire = self._wire
        if wire is None:
            raise ExportInterrupted(f"Cannot finish '{self.location}': it was never opened.")
        wire.read_rest()
        entry = self._lease.manifest(self._url)
        if entry is None:
            return "the host's manifest does not name the disk: size and checksum not compared"
        if entry.size and entry.size != wire.received_bytes:
            raise VerificationFailed(
                f"Bad export of '{self.location}': found {wire.received_bytes} bytes, needed "
                f"{entry.size} as the host's manifest says."
            )
        return self._compare_checksum(wire, checksums_of(entry))

    def _compare_checksum(self, wire: _HashedStream, given: dict[str, str]) -> str:
        known = [name for name in _CHECKSUMS if given.get(name)]
        for name in known:
            found = wire.checksum(name)
            if found != given[name]:
                raise VerificationFailed(
                    f"Bad export of '{self.location}': found {name} {found}, needed "
                    f"{given[name]} as the host's manifest says."
                )
        if not known:
            kinds = ", ".join(sorted(given)) or "none"
            return (
                f"{wire.received_bytes} bytes received; the manifest's checksum ({kinds}) not known"
            )
        return f"{wire.received_bytes} bytes and {' and '.join(known)} as the host's manifest says"


class _HashedStream:
    """A `ByteStream` that hashes what comes by every checksum a manifest may hold."""

    def __init__(self, source: ResponseStream) -> None:
        self.location = source.location
        self._source = source
        self._sums = {name: hashlib.new(name, usedforsecurity=False) for name in _CHECKSUMS}

    @property
    def received_bytes(self) -> int:
        """Return how much has come."""
        return self._source.received_bytes

    def read(self, length_bytes: int) -> bytes:
        """Return up to ``length_bytes``, fewer only at the end."""
        data = self._source.read(length_bytes)
        for one in self._sums.values():
            one.update(data)
        return data

    def read_rest(self) -> None:
        """Read to the end of the response: checksums are those of all of it."""
        limit = self.received_bytes + _MOST_BEHIND_BYTES
        while self.read(MIB):
            if self.received_bytes > limit:
                raise VerificationFailed(
                    f"Bad export of '{self.location}': found more than {_MOST_BEHIND_BYTES} bytes "
                    f"behind the end of the disk, needed none."
                )

    def checksum(self, name: str) -> str:
        """Return a checksum of all that came, in lower case."""
        return self._sums[name].hexdigest()

    def interrupt(self) -> None:
        """End a read under way in another thread."""
        self._source.interrupt()

    def close(self) -> None:
        """Close the connection."""
        self._source.close()


def checksums_of(entry: object) -> dict[str, str]:
    """Return a manifest entry's checksums by name; ``sha1`` is a field of its own."""
    named = str(getattr(entry, "checksumType", "") or "").lower().replace("-", "")
    given = [
        ("sha1", str(getattr(entry, "sha1", "") or "").lower()),
        (named, str(getattr(entry, "checksum", "") or "").lower()),
    ]
    return {name: value for name, value in given if name and value}
