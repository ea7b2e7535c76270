"""``imageport prepare``: the compositing engine at the site, from a disk to a new one."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from imageport.cli.disk_arguments import DISK_HELP, opened_disk, opened_folder, payload_folder
from imageport.cli.option_file import add_option_arguments, chosen_options
from imageport.cli.progress_lines import ProgressLines
from imageport.compose.contract import Action, EngineDisk, EngineJob, EngineReport
from imageport.compose.report_page import report_markdown
from imageport.compose.site_engine import overlay_over, run_site_engine
from imageport.compose.steps.order import recommended_names
from imageport.errors import InputError, NameTaken
from imageport.formats.file_target import OWN_SUFFIX, FileTarget
from imageport.formats.gpt import read_layout
from imageport.formats.vhdx_target import VhdxFileTarget
from imageport.formats.virtual_disk import VirtualDisk
from imageport.progress import EventSink, silent
from imageport.storage.folder import Folder
from imageport.storage.memory import MemoryFolder
from imageport.transfer.journal import Journal
from imageport.transfer.pipeline import TransferRequest, transfer
from imageport.transfer.verify import VerifyLevel
from imageport.workflow.engine_outcome import require_ok


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "SRC is never written: changes are kept beside it, and DST, a VHDX, gets its name after "
        "every block was read back. --plan writes nothing at all. OPTIONS is JSON, for example "
        '{"list_of_ddcs": ["ddc1.example"], "recommended": ["cloud_time_server"], "installers": '
        '[{"software": "vda", "name": "VDA", "version": "2402", "sha256": "…", "path": '
        '"vda/setup.exe", "arguments": ["/quiet"]}]}; everything wrong in it is told at once. All '
        f"options: docs/prepare.md. Recommended steps: {', '.join(recommended_names())}."
    )
    parser.add_argument("source", metavar="SRC", help=DISK_HELP)
    parser.add_argument("destination", metavar="DST", nargs="?", help="the VHDX to make")
    add_option_arguments(parser, target_is_needed=True)
    parser.add_argument("--payload", type=Path, help="folder with drivers, installers, own steps")
    parser.add_argument("--plan", action="store_true", help="show the changes, touch nothing")
    parser.add_argument(
        "--report", type=Path, help="where the report goes: Markdown by the ending .md, else JSON"
    )
    parser.add_argument("--work", type=Path, help="folder for what is changed, while at work")
    parser.add_argument("--json", action="store_true", help="print JSON, no progress")


def run(args: argparse.Namespace) -> int:
    """Plan, or compose and write the result; 3 when the image is refused or not ready."""
    if not args.plan and not args.destination:
        raise InputError("Cannot prepare without DST: name the VHDX to make, or give --plan.")
    payload_folder(args.payload)
    if args.report is not None and not args.report.parent.is_dir():
        raise InputError(f"Cannot write report '{args.report}': there is no such folder.")
    job = _job(args)
    events: EventSink = silent if args.json else ProgressLines(sys.stderr)
    with opened_disk(args.source) as disk:
        if args.plan:
            report = run_site_engine(disk, job, payload=args.payload, events=events)
            disk.check_unchanged()
            _write_report(report, args.report)
        else:
            report = _prepare(args, disk, job, events)
    require_ok(report, args.source)
    text = report.to_json() if args.json else report_markdown(report)
    sys.stdout.write(text + "\n")
    return 0


def _job(args: argparse.Namespace) -> EngineJob:
    action = Action.PLAN if args.plan else Action.COMPOSE
    return EngineJob(action, EngineDisk(""), chosen_options(args))


def _prepare(
    args: argparse.Namespace, disk: VirtualDisk, job: EngineJob, events: EventSink
) -> EngineReport:
    """Compose over the disk and write the result as DST; what is not ready is not written."""
    named = replace(job, disk=EngineDisk("", read_layout(disk).disk_guid))
    with (
        opened_folder(args.destination) as (folder, name),
        overlay_over(disk, folder=args.work) as composed,
    ):
        if folder.stat(name) is not None:
            raise NameTaken(f"Cannot create '{args.destination}': the name exists.")
        report = run_site_engine(composed, named, payload=args.payload, events=events)
        _write_report(report, args.report)
        if report.ok:
            part = name + OWN_SUFFIX
            _written(composed, VhdxFileTarget(folder, part, sector_bytes=disk.sector_bytes), events)
            _take_name(folder, part, name)
    return report


def _written(disk: VirtualDisk, target: FileTarget, events: EventSink) -> None:
    request = TransferRequest(
        # In memory: what this command did not finish is begun anew, the overlay is gone as well.
        journal=Journal(MemoryFolder(), "write.journal"),
        token="prepare",  # noqa: S106 - names the transfer
        verify=VerifyLevel.FULL,
        events=events,
        stage="write",
        may_go_on=lambda _error: False,
    )
    try:
        transfer(disk, target, request)
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
        try:
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise InputError(f"Cannot write report '{path}': {error.strerror}.") from error
