"""``imageport sandbox up|down|status``: the embedded site, left running to look around in."""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from imageport.cli.progress_lines import ProgressLines
from imageport.sandbox.processes import marked_processes
from imageport.sandbox.site import EmbeddedSite, stop_site
from imageport.sandbox.site_facts import HYPERVISOR_BLOCKS, TARGET_BLOCKS, SiteFacts, load_facts


def default_root() -> Path:
    """Return where the embedded site lives: ``IMAGEPORT_SANDBOX`` or below the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return Path(os.environ.get("IMAGEPORT_SANDBOX", cache / "imageport" / "sandbox"))


def add_root_argument(parser: argparse.ArgumentParser) -> None:
    """Declare ``--root``."""
    parser.add_argument(
        "--root", type=Path, default=default_root(), help="the site's folder (default: %(default)s)"
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("verb", choices=["up", "down", "status"], help="what to do")
    parser.add_argument(
        "--cloud", choices=[*TARGET_BLOCKS, "all"], default="aws",
        help="the clouds that `up` starts (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--hypervisor", choices=list(HYPERVISOR_BLOCKS), default="",
        help="the hypervisor with a master machine that `up` starts (default: none)",
    )  # fmt: skip
    add_root_argument(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Start, stop or show the site."""
    if args.verb == "down":
        ended = stop_site(args.root)
        _print(args, {"ended_processes": ended}, f"{ended} processes ended.")
        return 0
    if args.verb == "status":
        facts = load_facts(args.root)
        running = len(marked_processes(args.root.resolve()))
        _print(args, {**asdict(facts), "processes": running}, describe(facts))
        return 0
    events = ProgressLines(sys.stderr)
    with EmbeddedSite(
        args.root, cloud=args.cloud, hypervisor=args.hypervisor, events=events
    ) as site:
        site.detach()
        facts = load_facts(args.root)
    _print(args, asdict(facts), describe(facts))
    return 0


def describe(facts: SiteFacts) -> str:
    """Return how to reach a running site, as lines."""
    user, _, password = facts.api_auth.partition(":")
    share = f"smb://127.0.0.1:{facts.smb_port}"
    labels = {"aws": "AWS endpoint", "azure": "Azure endpoint", "gcp": "Google Cloud"}
    vcenter = [
        f"vCenter API    https://127.0.0.1:{facts.vcenter_port}",
        f"               (user {facts.vcenter_user}, password {facts.vcenter_password})",
    ]
    return "\n".join(
        [
            f"Prefect UI     {facts.ui_url}  (user {user}, password {password})",
            f"Prefect API    {facts.api_url}",
            f"vDisk stores   {share}/source-store and {share}/target-store",
            f"               (user {facts.smb_user}, password {facts.smb_password})",
            *(f"{labels[name]:<14} {endpoint}" for name, endpoint in facts.clouds().items()),
            *(vcenter if facts.vcenter_port else ()),
            f"folder         {facts.root}",
            "Stop it with `imageport sandbox down`.",
        ]
    )


def _print(args: argparse.Namespace, facts: dict[str, object], text: str) -> None:
    sys.stdout.write((json.dumps(facts) if args.json else text) + "\n")
