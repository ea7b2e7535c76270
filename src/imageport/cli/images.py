"""``imageport images``: the catalogue as a table."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys

from imageport.cli.cloud_arguments import add_state_argument, state_from
from imageport.model import GIB
from imageport.state.records import Generation
from imageport.workflow.generations import engine_place


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_state_argument(parser, required=True)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print every generation that the catalogue knows."""
    generations = sorted(state_from(args).catalogue.list(), key=lambda g: (g.image, g.created))
    if args.json:
        text = json.dumps([dataclasses.asdict(generation) for generation in generations])
        sys.stdout.write(text + "\n")
        return 0
    for generation in generations:
        sys.stdout.write(_line(generation) + "\n")
    if not generations:
        sys.stdout.write("The catalogue is empty.\n")
    return 0


def _line(generation: Generation) -> str:
    places = ", ".join(f"{p.store}/{p.file_name}" for p in generation.publications) or "-"
    engine = f"engine at the {engine_place(generation)}" if "composed" in generation.details else ""
    return (
        f"{generation.role}  {generation.image:<20} {generation.target:<32} "
        f"{generation.created}  {generation.size_bytes / GIB:6.1f} GiB  {generation.id}  {places}"
        f"  {engine}"
    ).rstrip()
