"""``imageport demo``: the main job end to end on the embedded site, as an operator would see it.

Two sites on this machine; a run is started through Prefect's REST API and watched there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from imageport.cli.demo_workflow import OPTIONS, PVS_TO_PVS, WORKFLOWS, DemoWorkflow, saved_block
from imageport.cli.progress_lines import ProgressLines
from imageport.cli.run_summary import RunSummary, summarise, write_report
from imageport.cli.run_watch import RunWatch, error_of
from imageport.cli.sandbox import add_root_argument, describe
from imageport.errors import RecordMissing
from imageport.sandbox.demo_image import DemoImage
from imageport.sandbox.site import EmbeddedSite
from imageport.sandbox.site_facts import (
    SOURCE_SITE,
    TARGET_BLOCKS,
    TARGET_SITE,
    place_of,
)
from imageport.state.store import StateStore
from imageport.storage.local import LocalFolder
from imageport.workflow.facts import image_name

LONGEST_SECONDS = 4 * 3600.0
"""A large image of the user's own under emulation; the sample takes minutes."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = (
        "The sample is a look-alike: the hives, files and boot chain of Windows 11, no Windows "
        "code. The one boot is real firmware up to the image's own loader, then a guest player."
    )
    parser.add_argument(
        "--workflow", choices=list(WORKFLOWS), default=PVS_TO_PVS,
        help="a vDisk of a store, or an MCS master image of a vCenter (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--image", default="", metavar="PATH|smb://…",
        help="your own VHDX instead of the sample (for mcs-to-pvs as the master's disk); for a "
        "share set IMAGEPORT_SMB_USER and IMAGEPORT_SMB_PASSWORD",
    )  # fmt: skip
    parser.add_argument(
        "--cloud", choices=list(TARGET_BLOCKS), default="aws",
        help="the target cloud (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--keep", action="store_true", help="leave the site and its UI running")
    add_root_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON at the end")


def run(args: argparse.Namespace) -> int:
    """Run the demo; progress goes to stderr, the result to stdout."""
    workflow = WORKFLOWS[args.workflow]
    image = workflow.chosen(args.image)
    lines = ProgressLines(sys.stderr)
    site = EmbeddedSite(
        args.root,
        cloud=args.cloud,
        hypervisor=workflow.hypervisor,
        events=lines,
        source=image.store,
    )
    try:
        facts = site.start(lambda: workflow.put(image, site.root, lines))
        parameters = _parameters(image, args.cloud) | workflow.parameters(site.root)
        moved = _watched(site, f"{args.workflow}/{SOURCE_SITE}", parameters, lines)
        summary = _summary(site, image, args.cloud, workflow, moved=moved)
        report = write_report(summary, site.root / "reports")
        if args.keep:
            site.detach()
    finally:
        site.__exit__()
    if args.json:
        found = {**summary.as_dict(), "report": str(report), "kept": args.keep}
        sys.stdout.write(json.dumps({**found, "ui": facts.ui_url}) + "\n")
        return 0
    _print_summary(summary, report)
    sys.stdout.write(_where_the_ui_is(facts, kept=args.keep) + "\n")
    return 0


def _watched(
    site: EmbeddedSite, deployment: str, parameters: dict[str, Any], lines: ProgressLines
) -> bool:
    """Start the run, show it until it ended; True when something had to move."""
    api = site.control.api
    run_id = api.start(deployment, parameters)
    lines.say("run", f"started through {api.url}/deployments/…/create_flow_run")
    state = RunWatch(api, run_id, lines).until_ended(LONGEST_SECONDS)
    if state.type != "COMPLETED":
        runs = [run_id, *api.child_runs(run_id)]
        raise error_of(state, api.all_logs(runs))
    lines.say("run", state.message)
    return state.name == "Completed"


def _parameters(image: DemoImage, cloud: str) -> dict[str, Any]:
    """Return what a person would choose in the form of either workflow."""
    return {
        "source": saved_block(f"imageport-site/{SOURCE_SITE}"),
        "target": saved_block(f"imageport-site/{TARGET_SITE}"),
        "cloud": saved_block(TARGET_BLOCKS[cloud]),
        "image": image.name,
        "options": OPTIONS,
    }


def _summary(
    site: EmbeddedSite, image: DemoImage, cloud: str, workflow: DemoWorkflow, *, moved: bool
) -> RunSummary:
    target = place_of(cloud)
    name = image_name(image.name)
    with LocalFolder(site.root / "shares" / "state") as folder:
        found = summarise(StateStore(folder), name, target, moved=moved, exports=workflow.exports)
    if found is None:
        raise RecordMissing(f"Cannot find '{name}' at {target}: the catalogue has no publication.")
    return found


def _print_summary(summary: RunSummary, report: Path) -> None:
    text = [*summary.lines(), f"Report       {report}"]
    sys.stdout.write("\n" + "\n".join(text) + "\n")


def _where_the_ui_is(facts: Any, *, kept: bool) -> str:
    if kept:
        return "\n" + describe(facts)
    return f"UI           it was at {facts.ui_url}; `./demo --keep` leaves it up"
