"""``imageport inspect``: what a disk is, what it holds and what prepare would say to it."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imageport.cli.chain_facts import chain_facts
from imageport.cli.disk_arguments import DISK_HELP, opened_disk, payload_folder
from imageport.cli.option_file import add_option_arguments, chosen_options
from imageport.cli.progress_lines import ProgressLines
from imageport.compose.contract import (
    Action,
    EngineDisk,
    EngineJob,
    EngineOptions,
    EngineReport,
    Inspection,
)
from imageport.compose.report_page import inspection_facts, one_line
from imageport.errors import BadDisk
from imageport.formats.disk_file import DiskFile
from imageport.formats.gpt import read_layout
from imageport.model import GIB, MIB, ExtentState
from imageport.progress import EventSink, silent

_SHOWN = 20
"""Items of one list on the terminal."""
_HELD = {"data": "data", "zero": "zeros", "hole": "nothing for", "below": "its parent's"}
"""What a file of a chain holds, in words."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "Reads VHDX, VHD, VMDK, qcow2 and raw disks, and chains of VHDX and of VHD: the parents "
        "of a version (gold.2.avhdx) are found in its folder. A pending VHDX log is replayed in "
        "memory; the disk is never written. Looking into the guest starts a small machine and "
        "takes about half a minute; it tells what is there and what `imageport prepare` would "
        "refuse for --target, "
        "with the options and files that it would get."
    )
    parser.add_argument("disk", metavar="DISK", help=DISK_HELP)
    parser.add_argument("--no-guest", action="store_true", help="do not look into the guest")
    add_option_arguments(parser, target_is_needed=False)
    parser.add_argument("--payload", type=Path, help="as for prepare")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print what was found; 1 when the partition table is damaged, 3 when prepare would refuse."""
    options = chosen_options(args)
    payload_folder(args.payload)
    with opened_disk(args.disk) as disk:
        facts = _disk_facts(disk)
        facts |= _layout_facts(disk)
        if not args.no_guest and not facts["problem"]:
            facts["guest"] = _guest_facts(disk, options, args)
        disk.check_unchanged()
    text = json.dumps(facts, indent=1) if args.json else "\n".join(_lines(facts))
    sys.stdout.write(text + "\n")
    if facts["problem"]:
        return 1
    return 3 if facts.get("guest", {}).get("refusals") else 0


def _disk_facts(disk: DiskFile) -> dict[str, Any]:
    sums = dict.fromkeys(ExtentState, 0)
    count = 0
    for extent in disk.extents():
        sums[extent.state] += extent.length_bytes
        count += 1
    return {
        "location": disk.location,
        "format": disk.format_name,
        "size_bytes": disk.size_bytes,
        "sector_bytes": disk.sector_bytes,
        "file": disk.details(),
        "chain": chain_facts(disk),
        "extents": {"count": count} | {f"{state}_bytes": sums[state] for state in ExtentState},
    }


def _layout_facts(disk: DiskFile) -> dict[str, Any]:
    try:
        layout = read_layout(disk)
    except BadDisk as error:
        return {"scheme": "damaged", "disk_guid": "", "partitions": [], "problem": error.message}
    return {
        "scheme": layout.scheme,
        "disk_guid": layout.disk_guid,
        "partitions": [asdict(partition) for partition in layout.partitions],
        "problem": "",
    }


def _guest_facts(
    disk: DiskFile, options: EngineOptions, args: argparse.Namespace
) -> dict[str, Any]:
    # Imported here: without the guest, no engine and no libguestfs are needed.
    from imageport.compose.site_engine import run_site_engine  # noqa: PLC0415

    job = EngineJob(action=Action.INSPECT, disk=EngineDisk(path=""), options=options)
    events: EventSink = silent if args.json else ProgressLines(sys.stderr)
    report: EngineReport = run_site_engine(disk, job, payload=args.payload, events=events)
    return {
        "target": options.cloud,
        "provisioning": options.provisioning,
        "inspection": asdict(report.inspection),
        "refusals": [asdict(refusal) for refusal in report.refusals],
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    extents = facts["extents"]
    lines = [
        _row("disk", facts["location"]),
        _row("format", f"{facts['format']}, sectors of {facts['sector_bytes']} bytes"),
        _row("size", f"{_size(facts['size_bytes'])} ({facts['size_bytes']} bytes)"),
        *(
            _row(name.replace("_", " "), _shown(name, value))
            for name, value in facts["file"].items()
        ),
        *_chain_lines(facts["chain"]),
        _row("data", _size(extents["data_bytes"])),
        _row("zero", f"{_size(extents['zero_bytes'])} (allocated or marked, nothing to read)"),
        _row("hole", f"{_size(extents['hole_bytes'])} (never allocated)"),
        _row("partitions", f"{facts['scheme']} {facts['disk_guid']}".strip()),
    ]
    lines += [
        f"  {one['number']:>3}  {_size(one['first_byte']):>10} + {_size(one['length_bytes']):<10}"
        f"  {one['type_guid']}  {one_line(one['name'])}".rstrip()
        for one in facts["partitions"]
    ]
    if facts["problem"]:
        lines.append(_row("problem", facts["problem"]))
    if "guest" in facts:
        lines += _guest_lines(facts["guest"])
    return lines


def _chain_lines(chain: list[dict[str, Any]]) -> list[str]:
    """Return a row a file, and what it holds of the disk below its name."""
    lines: list[str] = []
    for depth, one in enumerate(chain):
        version = "" if one["version"] is None else f", version {one['version']}"
        size = _size(one["file"]["file_bytes"])
        lines.append(
            _row("" if depth else "chain", f"{one['name']} ({one['format']}{version}, {size})")
        )
        held = ", ".join(
            f"{name} {_size(one['holds'][f'{key}_bytes'])}"
            for key, name in _HELD.items()
            if one["holds"][f"{key}_bytes"]
        )
        lines.append(_row("", f"  id {one['id']}; {held}"))
        if one["parent_ids"]:
            lines.append(_row("", f"  on {' or '.join(one['parent_ids'])}"))
        if "notes" in one["file"]:
            lines.append(_row("", f"  note: {one['file']['notes']}"))
    return lines


def _guest_lines(guest: dict[str, Any]) -> list[str]:
    inspection = Inspection(**guest["inspection"])
    lines: list[str] = []
    if inspection.product_name:
        shown = inspection_facts(inspection)
        lines += [_row(name, value) for name, value in shown if name != "Disk"]
    for name in ("drivers", "network", "policies", "software"):
        found = getattr(inspection, name)
        lines += [_row("" if at else name, one) for at, one in enumerate(found[:_SHOWN])]
        if len(found) > _SHOWN:
            lines.append(_row("", f"and {len(found) - _SHOWN} more; --json has them all"))
    way = f"for {guest['target']}, {guest['provisioning']}"
    if not guest["refusals"]:
        return [*lines, _row("prepare", f"finds no reason to refuse this image {way}")]
    lines.append(_row("prepare", f"would refuse this image {way}"))
    for refusal in guest["refusals"]:
        lines.append(_row("refused", f"{refusal['reason']} [{refusal['code']}]"))
        lines.append(_row("", f"Hint: {refusal['hint']}"))
    return lines


def _row(name: str, value: object) -> str:
    return f"{name:<28} {one_line(str(value))}"


def _shown(name: str, value: object) -> object:
    return _size(value) if name.endswith("_bytes") and isinstance(value, int) else value


def _size(count: int) -> str:
    return f"{count / GIB:.2f} GiB" if count >= GIB else f"{count / MIB:.1f} MiB"
