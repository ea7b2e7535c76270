"""``imageport prepare``: the compositing engine at the site, on a new copy of a disk."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from imageport.cli.disk_arguments import DISK_HELP, opened_disk, opened_folder
from imageport.cli.progress_lines import ProgressLines
from imageport.compose.cloud_target import TARGETS
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineReport, job_from_json
from imageport.compose.report_page import report_markdown
from imageport.compose.site_engine import run_site_engine
from imageport.compose.steps.order import recommended_names
from imageport.errors import InputError, NameTaken
from imageport.formats.file_target import OWN_SUFFIX, FileTarget, RawFileTarget, VhdxFileTarget
from imageport.formats.gpt import read_layout
from imageport.formats.opening import open_disk
from imageport.formats.virtual_disk import VirtualDisk
from imageport.progress import EventSink, silent
from imageport.storage.folder import Folder
from imageport.storage.local import LocalFolder
from imageport.transfer.journal import Journal
from imageport.transfer.pipeline import TransferRequest, transfer
from imageport.transfer.verify import VerifyLevel
from imageport.workflow.engine_outcome import require_ok

_COPY = "copy.raw"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "SRC is never written: the changes go to a copy, DST, a VHDX that gets its name after "
        "every block was read back. --plan makes no copy at all. OPTIONS is JSON, for example "
        '{"list_of_ddcs": ["ddc1.example"], "recommended": ["cloud_time_server"]}; recommended '
        f"steps: {', '.join(recommended_names())}."
    )
    parser.add_argument("source", metavar="SRC", help=DISK_HELP)
    parser.add_argument("destination", metavar="DST", nargs="?", help="the VHDX to make")
    parser.add_argument("--target", choices=sorted(TARGETS), required=True, help="the cloud")
    parser.add_argument("--provisioning", choices=["pvs", "mcs"], default="pvs")
    parser.add_argument("--options", type=Path, metavar="OPTIONS", help="a JSON file")
    parser.add_argument("--payload", type=Path, help="folder with driver packages")
    parser.add_argument("--plan", action="store_true", help="show the changes, touch nothing")
    parser.add_argument(
        "--report", type=Path, help="where the report goes: Markdown by the ending .md, else JSON"
    )
    parser.add_argument("--work", type=Path, help="folder for the temporary copy")
    parser.add_argument("--json", action="store_true", help="print JSON, no progress")


def run(args: argparse.Namespace) -> int:
    """Plan, or compose a copy and write it; 3 when the image is refused or not ready."""
    if not args.plan and not args.destination:
        raise InputError("Cannot prepare without DST: name the VHDX to make, or give --plan.")
    if args.payload is not None and not args.payload.is_dir():
        raise InputError(f"Cannot read payload '{args.payload}': it is no folder.")
    job = _job(args)
    events: EventSink = silent if args.json else ProgressLines(sys.stderr)
    with opened_disk(args.source) as disk:
        if args.plan:
            report = run_site_engine(disk, job, payload=args.payload, events=events)
            _write_report(report, args.report)
        else:
            report = _prepare(args, disk, job, events)
    require_ok(report, args.source)
    text = report.to_json() if args.json else report_markdown(report)
    sys.stdout.write(text + "\n")
    return 0


def _job(args: argparse.Namespace) -> EngineJob:
    options: dict[str, Any] = {}
    if args.options is not None:
        try:
            options = json.loads(args.options.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(f"Cannot read options '{args.options}': {error}.") from error
        if not isinstance(options, dict):
            raise InputError(f"Bad options '{args.options}': found no JSON object, needed one.")
    options |= {"cloud": args.target, "provisioning": args.provisioning}
    action = Action.PLAN if args.plan else Action.COMPOSE
    document = {"schema": 1, "action": action, "disk": {"path": ""}, "options": options}
    try:
        return job_from_json(json.dumps(document))
    except ValueError as error:
        raise InputError(f"Bad options: {error}") from error


def _prepare(
    args: argparse.Namespace, disk: VirtualDisk, job: EngineJob, events: EventSink
) -> EngineReport:
    """Copy, compose the copy, write it as DST; a copy that is not ready is dropped."""
    named = replace(job, disk=EngineDisk("", read_layout(disk).disk_guid))
    with (
        opened_folder(args.destination) as (folder, name),
        tempfile.TemporaryDirectory(prefix="imageport-prepare-", dir=args.work) as work,
        LocalFolder(Path(work)) as local,
    ):
        if folder.stat(name) is not None:
            raise NameTaken(f"Cannot create '{args.destination}': the name exists.")
        sector_bytes = disk.sector_bytes
        target = RawFileTarget(local, _COPY, sector_bytes=sector_bytes)
        _copied(disk, target, local, "copy", events)
        copy = Path(work) / _COPY
        report = run_site_engine(copy, named, payload=args.payload, events=events)
        _write_report(report, args.report)
        if report.ok:
            with open_disk(local.open_read(_COPY)) as composed:
                part = name + OWN_SUFFIX
                _copied(
                    composed,
                    VhdxFileTarget(folder, part, sector_bytes=sector_bytes),
                    local,
                    "write",
                    events,
                )
                _take_name(folder, part, name)
    return report


def _copied(
    disk: VirtualDisk, target: FileTarget, work: Folder, stage: str, events: EventSink
) -> None:
    request = TransferRequest(
        journal=Journal(work, f"{stage}.journal"),
        token=f"prepare {stage}",
        verify=VerifyLevel.FULL,
        events=events,
        stage=stage,
        partitions=(),
    )
    try:
        transfer(disk, target, request)
    except BaseException:
        target.abort()  # no journal survives this command, so a half has no use
        raise
    finally:
        target.close()


def _take_name(folder: Folder, part: str, name: str) -> None:
    try:
        folder.rename(part, name)
    except NameTaken:
        folder.delete(part)
        raise


def _write_report(report: EngineReport, path: Path | None) -> None:
    if path is not None:
        text = report_markdown(report) if path.suffix == ".md" else report.to_json() + "\n"
        path.write_text(text, encoding="utf-8")
