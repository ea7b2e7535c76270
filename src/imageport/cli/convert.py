"""``imageport convert``: any readable disk to a new file, verified before it gets its name."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from imageport.cli.disk_arguments import DISK_HELP, opened_disk, opened_folder
from imageport.cli.progress_lines import ProgressLines
from imageport.errors import InputError, NameTaken, VerificationFailed
from imageport.formats.file_target import OWN_SUFFIX, FileTarget, RawFileTarget, VhdxFileTarget
from imageport.formats.virtual_disk import VirtualDisk
from imageport.model import MIB
from imageport.progress import EventSink, silent
from imageport.storage.folder import Folder
from imageport.transfer.journal import Journal
from imageport.transfer.pipeline import TransferRequest, TransferResult, transfer
from imageport.transfer.verify import VerifyLevel

_SUFFIXES = {"vhdx": "vhdx", "raw": "raw", "img": "raw"}
_JOURNAL_SUFFIX = ".imageport-journal"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "Reads VHDX and raw disks, writes VHDX (dynamic, 32 MiB blocks) and raw (sparse); VHD "
        "follows in a later release. Holes stay holes. DST gets its name after every block was "
        "read back and compared; until then it is DST.imageport-part, and the same command goes "
        "on where an interrupted one ended."
    )
    parser.add_argument("source", metavar="SRC", help=DISK_HELP)
    parser.add_argument("destination", metavar="DST", help="a file that does not exist yet")
    parser.add_argument(
        "--format", choices=["raw", "vhdx"], help="of DST (default: by DST's ending)"
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
            result = _convert(disk, folder, name, target_format, events)
            facts = _facts(disk, args.destination, target_format, result)
    sys.stdout.write((json.dumps(facts) if args.json else _text(facts)) + "\n")
    return 0


def _format_of(destination: str) -> str:
    suffix = destination.rsplit(".", 1)[-1].lower()
    if suffix not in _SUFFIXES:
        raise InputError(
            f"Bad destination '{destination}': its ending names no format.",
            hint="End it in .vhdx, .raw or .img, or give --format.",
        )
    return _SUFFIXES[suffix]


def _convert(
    disk: VirtualDisk, folder: Folder, name: str, target_format: str, events: EventSink
) -> TransferResult:
    part = name + OWN_SUFFIX
    journal = Journal(folder, name + _JOURNAL_SUFFIX)
    kinds: dict[str, type[RawFileTarget | VhdxFileTarget]] = {
        "raw": RawFileTarget,
        "vhdx": VhdxFileTarget,
    }
    target: FileTarget = kinds[target_format](folder, part, sector_bytes=disk.sector_bytes)
    request = TransferRequest(
        journal=journal,
        token=f"convert {part} {target_format}",
        verify=VerifyLevel.FULL,
        events=events,
        stage="convert",
        partitions=(),
    )
    try:
        result = transfer(disk, target, request)
        folder.rename(part, name)
    except (VerificationFailed, NameTaken):
        folder.delete(part)
        journal.delete()
        raise
    finally:
        target.close()
    journal.delete()
    return result


def _facts(
    disk: VirtualDisk, destination: str, target_format: str, result: TransferResult
) -> dict[str, object]:
    return {
        "source": disk.location,
        "source_format": disk.format_name,
        "destination": destination,
        "format": target_format,
        "size_bytes": disk.size_bytes,
        "image_digest": result.manifest.image_digest(),
        "verified": result.verified,
        "stats": asdict(result.stats),
    }


def _text(facts: dict[str, object]) -> str:
    stats = facts["stats"]
    read = stats["bytes_read"] if isinstance(stats, dict) else 0
    return (
        f"{facts['destination']}: {facts['format']}, {facts['size_bytes']} bytes, "
        f"{read / MIB:.0f} MiB read; {facts['verified']}"
    )
