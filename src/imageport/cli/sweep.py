"""``imageport sweep``: delete what expired runs of one site left in the cloud."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from datetime import UTC, datetime

from imageport.cli.cloud_arguments import add_cloud_arguments, cloud_from, state_from
from imageport.clouds.sweep import sweep
from imageport.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_cloud_arguments(parser, required=True)
    parser.add_argument("--dry-run", action="store_true", help="only say what would be deleted")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Sweep and print what was deleted."""
    if not args.site:
        raise InputError(
            "Cannot sweep '': the site is not named.",
            hint="Give --site; a sweep touches one site's resources only.",
        )
    state = state_from(args)
    cloud = cloud_from(args, state, run="sweep")
    try:
        found = sweep(cloud, state, args.site, datetime.now(UTC), dry_run=args.dry_run)
    finally:
        cloud.close()
    if args.json:
        sys.stdout.write(json.dumps([dataclasses.asdict(item) for item in found]) + "\n")
        return 0
    verb = "would delete" if args.dry_run else "deleted"
    for item in found:
        sys.stdout.write(f"{verb} {item}\n")
    if not found:
        sys.stdout.write("Nothing to delete.\n")
    return 0
