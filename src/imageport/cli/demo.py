"""``imageport demo``: the main job end to end on the embedded site, as an operator would see it.

Two sites on this machine; a run is started through Prefect's REST API and watched there.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from imageport.cli.demo_workflow import (
    FAN_OUT,
    OPTIONS,
    PVS_TO_PVS,
    WORKFLOWS,
    DemoWorkflow,
    saved_block,
)
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

ALL = "all"
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
        "--cloud", choices=[*TARGET_BLOCKS, ALL], default="aws",
        help="the target cloud, or all at once with one read of the image (default: %(default)s)",
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
        deployment, parameters = _asked(image, workflow, args, site)
        moved = _watched(site, f"{deployment}/{SOURCE_SITE}", parameters, lines)
        summaries = {
            cloud: _summary(site, image, cloud, workflow, moved=moved) for cloud in site.clouds
        }
        reports = {
            cloud: write_report(summary, site.root / "reports" / cloud)
            for cloud, summary in summaries.items()
        }
        if args.keep:
            site.detach()
    finally:
        site.__exit__()
    if args.json:
        found = _as_json(summaries, reports)
        sys.stdout.write(json.dumps({**found, "kept": args.keep, "ui": facts.ui_url}) + "\n")
        return 0
    for cloud, summary in summaries.items():
        _print_summary(summary, reports[cloud])
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


def _asked(
    image: DemoImage, workflow: DemoWorkflow, args: argparse.Namespace, site: EmbeddedSite
) -> tuple[str, dict[str, Any]]:
    """Return the flow and what a person would choose in its form."""
    target = saved_block(f"imageport-site/{TARGET_SITE}")
    chosen = {
        "source": saved_block(f"imageport-site/{SOURCE_SITE}"),
        "image": image.name,
        "options": OPTIONS,
        **workflow.parameters(site.root),
    }
    if args.cloud != ALL:
        return args.workflow, {**chosen, "target": target, "cloud": _block_of(args.cloud)}
    if "vm" in chosen:
        chosen |= {"image": chosen.pop("vm"), "publish_name": image.name}
    # One store takes them all: each cloud's image has a name of its own there.
    chosen["destinations"] = [
        {"site": target, "cloud": _block_of(cloud), "suffix": f"-{cloud}"} for cloud in site.clouds
    ]
    return FAN_OUT, chosen


def _block_of(cloud: str) -> dict[str, Any]:
    return saved_block(TARGET_BLOCKS[cloud])


def _as_json(summaries: dict[str, RunSummary], reports: dict[str, Path]) -> dict[str, Any]:
    """Return one target's summary as it is, several by cloud."""
    found = {
        cloud: {**summary.as_dict(), "report": str(reports[cloud])}
        for cloud, summary in summaries.items()
    }
    if len(found) > 1:
        return {"targets": found}
    (only,) = found.values()
    return only


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
