# References: IAM, "Downscope short-lived credentials"; Compute Engine, "Block storage performance".
"""The worker's side of reading a prepared disk: a machine writes its blocks to the bucket."""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from imageport.cloud import CloudDisk
from imageport.clouds import engine_setup
from imageport.clouds.engine_setup import DEVICE_SECONDS, LOG, REPORT, SETUP, user_data
from imageport.clouds.gcp.account import GcpAccount
from imageport.clouds.gcp.downscoped_token import creating_token
from imageport.clouds.gcp.engine_vm import DEVICES, JobMachine
from imageport.clouds.gcp.job_folder import JobFolder
from imageport.clouds.gcp.objects import Objects
from imageport.clouds.gcp.segment_index import ImageIndex
from imageport.clouds.gcp.segment_writer import NO_DIGEST, write_segments_of_disk
from imageport.clouds.gcp.segments import prepared_folder, segment_digest
from imageport.clouds.waiting import wait_for, wait_until
from imageport.errors import CloudError
from imageport.model import MIB, ZERO_DIGEST
from imageport.transfer.digest_table import DIGEST_BYTES
from imageport.transfer.manifest import Manifest, block_count

KNOWN, GRANT, DIGESTS = "known", "grant.json", "digests"
LEAST_SECONDS: Final = 1800.0
SLOWEST_BYTES_PER_SECOND: Final = 3 * MIB
"""What a pd-standard disk of 30 GB gives; Google's faster types give ten times that."""
REPORT_BYTES: Final = MIB
DIGESTS_SECONDS: Final = 60.0
"""The machine writes the digests before the report."""


@dataclass(frozen=True, slots=True)
class SegmentRun:
    """The reading of one disk."""

    disk: CloudDisk
    image: str
    """Name of the image that it becomes."""

    @property
    def action(self) -> str:
        """Return what is done with the disk, for messages."""
        return "read"

    @property
    def deadline_seconds(self) -> float:
        """Return how long reading may take."""
        return LEAST_SECONDS + self.disk.size_bytes / SLOWEST_BYTES_PER_SECOND

    @property
    def machine_seconds(self) -> float:
        """Return after how long the machine ends by itself, and its URLs with it."""
        return self.deadline_seconds + engine_setup.GRACE_SECONDS


def write_segments(
    account: GcpAccount, disk: CloudDisk, image: str, source: ImageIndex | None
) -> Manifest:
    """Have the blocks of a disk written to the bucket; return what each of them holds.

    A call after a crash finds the machine of the killed call and waits for its report.

    Args:
        account: Of the run.
        disk: Which no machine has.
        image: Name of the image that it becomes; what is new lies under it.
        source: Index of the image that the disk was made from: its blocks are not written again.

    Raises:
        EngineFailed: no report, or one that does not fit the disk or the bucket; with the log.
        CloudError: as the cloud answers.
    """
    run = SegmentRun(disk, image)
    machine = JobMachine(account, "segments", disk.id, image)
    known = frozenset(digest for _, digest in source.blocks()) if source else frozenset()
    grant = _Grant(account, machine.folder, prepared_folder(account.settings, image))
    try:
        grant.renew()
        machine.start(
            lambda: _write_setup(account, run, machine.folder, known),
            run.machine_seconds,
            read_only=True,
        )
        watch = machine.watch(run)
        found = wait_until(watch.check, run.machine_seconds, pulse=grant.live)
        report = watch.delivered(found, machine.console)
        try:
            return _manifest(account, run, machine.folder, report, known)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise watch.failed(f"its report does not fit ({error})", machine.console) from error
    finally:
        machine.remove()


class _Grant:
    """The machine's token: in one object, renewed as long as somebody waits."""

    def __init__(self, account: GcpAccount, folder: JobFolder, place: str) -> None:
        self._account = account
        self._folder = folder
        self._place = place
        self._renew_at = 0.0

    def renew(self) -> None:
        """Write a new token."""
        token = creating_token(self._account, self._place)
        self._folder.write(GRANT, json.dumps({"token": token.value}).encode())
        # Half of its life is left to a worker that is killed, or to a slow token service.
        self._renew_at = time.monotonic() + token.seconds / 2

    def live(self) -> None:
        """Renew what is due; a failure that may pass is met again at the next turn."""
        self._account.live()
        if time.monotonic() < self._renew_at:
            return
        try:
            self.renew()
        except CloudError as error:
            if not error.retryable:
                raise


def _write_setup(
    account: GcpAccount, run: SegmentRun, folder: JobFolder, known: frozenset[bytes]
) -> str:
    """Write what the machine has to know; return its script."""
    seconds, settings = run.machine_seconds, account.settings
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, KNOWN)
        path.write_bytes(b"".join(sorted(known)))
        known_sha256 = folder.write_file(KNOWN, path)
    setup: dict[str, Any] = {
        "known": {"url": folder.read_url(KNOWN, seconds), "sha256": known_sha256},
        "disk_guid": run.disk.disk_guid,
        "devices": list(DEVICES),
        "device_seconds": DEVICE_SECONDS,
        "endpoint": settings.endpoint("storage"),
        "bucket": settings.bucket,
        "folder": prepared_folder(settings, run.image),
        "grant_url": folder.read_url(GRANT, seconds),
        "digests_url": folder.write_url(DIGESTS, seconds),
        "report_url": folder.write_url(REPORT, seconds),
        "log_url": folder.write_url(LOG, seconds),
        "put_headers": folder.put_headers,
    }
    sha256 = folder.write(SETUP, json.dumps(setup).encode())
    minutes = int(seconds // 60) + 1
    return user_data(folder.read_url(SETUP, seconds), sha256, minutes, write_segments_of_disk)


def _manifest(
    account: GcpAccount,
    run: SegmentRun,
    folder: JobFolder,
    report: bytes,
    known: frozenset[bytes],
) -> Manifest:
    """Return what the machine says of the disk, compared with disk and bucket.

    Raises:
        ValueError: it does not fit. That each block holds what its digest says is checked by
            whoever reads it.
    """
    told = json.loads(report[:REPORT_BYTES])
    size_bytes = run.disk.size_bytes
    if told["size_bytes"] != size_bytes:
        found = str(told["size_bytes"])[:40]
        raise ValueError(f"it read {found} bytes, the disk has {size_bytes}")
    count = block_count(size_bytes)
    limit = count * DIGEST_BYTES
    packed = wait_for(
        folder.prefix + DIGESTS,
        lambda: folder.read(DIGESTS, limit + limit // 100 + MIB),
        DIGESTS_SECONDS,
    )
    if hashlib.sha256(packed).hexdigest() != told["digests_sha256"]:
        raise ValueError("its digests are not those that it delivered")
    digests = _unpacked(packed, limit)
    manifest = Manifest(size_bytes, absent_reads_zero=True)
    for index in range(count):
        digest = digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES]
        if digest not in {NO_DIGEST, ZERO_DIGEST}:
            manifest.set(index, digest)
    _require_stored(account, run, manifest, known)
    return manifest


def _require_stored(
    account: GcpAccount, run: SegmentRun, manifest: Manifest, known: frozenset[bytes]
) -> None:
    folder = prepared_folder(account.settings, run.image)
    lost = {digest for _, digest in manifest.digests.items() if digest not in known}
    new = len(lost)
    # The listing repeats what may pass by itself; whatever else was written takes no memory.
    for facts in Objects(account).list(folder):
        lost.discard(segment_digest(facts.key.removeprefix(folder)) or NO_DIGEST)
    if lost:
        first = min(lost).hex()
        raise ValueError(f"{len(lost)} of {new} new blocks are not in the bucket, {first}")


def _unpacked(packed: bytes, limit: int) -> bytes:
    stream = zlib.decompressobj()
    try:
        digests = stream.decompress(packed, limit + 1)
    except zlib.error as error:
        raise ValueError(f"its digests do not unpack ({error})") from error
    if len(digests) != limit:
        raise ValueError(f"it tells {len(digests)} bytes of digests, needed {limit}")
    return digests
