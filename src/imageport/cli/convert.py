"""``imageport convert``: any readable disk to a new file, verified before it gets its name."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict, dataclass

from imageport.cli.disk_arguments import DISK_HELP, opened_disk, opened_folder
from imageport.cli.progress_lines import ProgressLines
from imageport.errors import InputError, NameTaken, VerificationFailed
from imageport.formats.file_target import OWN_SUFFIX, FileTarget
from imageport.formats.plain_copy import copy_plainly
from imageport.formats.raw_target import RawFileTarget
from imageport.formats.vhd_target import FixedVhdFileTarget, VhdFileTarget
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB, TransferStats
from imageport.progress import EventSink, silent
from imageport.storage.folder import Folder
from imageport.transfer.journal import Journal
from imageport.transfer.pipeline import TransferRequest, transfer
from imageport.transfer.verify import VerifyLevel

_TARGETS: dict[str, type[RawFileTarget | VhdxFileTarget | VhdFileTarget]] = {
    "raw": RawFileTarget,
    "vhdx": VhdxFileTarget,
    "vhd": VhdFileTarget,
    "vhd-fixed": FixedVhdFileTarget,
}
_SUFFIXES = {"vhdx": "vhdx", "vhd": "vhd", "raw": "raw", "img": "raw"}
_JOURNAL_SUFFIX = ".imageport-journal"
_LEVELS = {"full": VerifyLevel.FULL, "sample": VerifyLevel.SAMPLE}
_NOT_VERIFIED = "not read back; nothing was hashed"


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a conversion made."""

    stats: TransferStats
    verified: str
    image_digest: str | None
    """None where nothing was hashed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "Reads every disk that `inspect` reads, chains too; writes VHDX (dynamic, 32 MiB blocks), "
        "VHD (dynamic, 2 MiB blocks, or fixed) and raw (sparse). Holes stay holes. DST gets its "
        "name after every block was read back and compared; until then it is "
        "DST.imageport-part, and the same command goes on where an interrupted one ended."
    )
    parser.add_argument("source", metavar="SRC", help=DISK_HELP)
    parser.add_argument("destination", metavar="DST", help="a file that does not exist yet")
    parser.add_argument(
        "--format",
        choices=list(_TARGETS),
        help="of DST (default: by DST's ending; .vhd is a dynamic one)",
    )
    parser.add_argument(
        "--verify",
        choices=[*_LEVELS, "none"],
        default="full",
        help="what is read back before DST gets its name: everything, a sample of 4603 blocks or "
        "nothing (default: full); 'none' hashes nothing either and begins anew each time",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, no progress")


def run(args: argparse.Namespace) -> int:
    """Copy, verify, rename."""
    target_format = args.format or _format_of(args.destination)
    events: EventSink = silent if args.json else ProgressLines(sys.stderr)
    with opened_folder(args.destination) as (folder, name):
        if folder.stat(name) is not None:
            raise NameTaken(f"Cannot create '{args.destination}': the name exists.")
        with opened_disk(args.source) as disk:
            made = _Conversion(folder, name, target_format, events).run(disk, args.verify)
            facts = _facts(disk, args.destination, target_format, made)
    sys.stdout.write((json.dumps(facts) if args.json else _text(facts)) + "\n")
    return 0


def _format_of(destination: str) -> str:
    suffix = destination.rsplit(".", 1)[-1].lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"Bad destination '{destination}': its ending names no format.",
            hint="End it in .vhdx, .vhd, .raw or .img, or give --format.",
        )
    return _SUFFIXES[suffix]


class _Conversion:
    """One new file from one disk, under its part name until it is whole."""

    def __init__(self, folder: Folder, name: str, target_format: str, events: EventSink) -> None:
        self._folder = folder
        self._name = name
        self._part = name + OWN_SUFFIX
        self._format = target_format
        self._events = events
        self._journal = Journal(folder, name + _JOURNAL_SUFFIX)

    def run(self, disk: VirtualDisk, verify: str) -> _Outcome:
        """Copy, verify, rename."""
        target: FileTarget = _TARGETS[self._format](
            self._folder, self._part, sector_bytes=disk.sector_bytes
        )
        try:
            copy = self._copied if verify == "none" else self._transferred
            made = copy(disk, target, verify)
            self._folder.rename(self._part, self._name)
        except (VerificationFailed, NameTaken):
            self._folder.delete(self._part)
            self._journal.delete()
            raise
        finally:
            target.close()
        self._journal.delete()
        return made

    def _transferred(self, disk: VirtualDisk, target: FileTarget, verify: str) -> _Outcome:
        request = TransferRequest(
            journal=self._journal,
            token=f"convert {self._part} {self._format}",
            verify=_LEVELS[verify],
            events=self._events,
            stage="convert",
            partitions=(),
        )
        result = transfer(disk, target, request)
        return _Outcome(result.stats, result.verified, result.manifest.image_digest())

    def _copied(self, disk: VirtualDisk, target: FileTarget, _verify: str) -> _Outcome:
        # A journal of an earlier run speaks of the file that is replaced now.
        self._journal.delete()
        started = time.monotonic()
        count = copy_plainly(disk, target, self._events)
        stats = TransferStats(
            bytes_planned=count,
            bytes_read=count,
            bytes_sent=count,
            bytes_skipped=disk.size_bytes - count,
            seconds=time.monotonic() - started,
        )
        return _Outcome(stats, _NOT_VERIFIED, None)


def _facts(
    disk: VirtualDisk, destination: str, target_format: str, made: _Outcome
) -> dict[str, object]:
    return {
        "source": disk.location,
        "source_format": disk.format_name,
        "destination": destination,
        "format": target_format,
        "size_bytes": disk.size_bytes,
        "image_digest": made.image_digest,
        "verified": made.verified,
        "stats": asdict(made.stats),
    }


def _text(facts: dict[str, object]) -> str:
    stats = facts["stats"]
    read = stats["bytes_read"] if isinstance(stats, dict) else 0
    return (
        f"{facts['destination']}: {facts['format']}, {facts['size_bytes']} bytes, "
        f"{read / MIB:.0f} MiB read; {facts['verified']}"
    )
