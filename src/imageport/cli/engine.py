"""``imageport engine build``: write the compositing engine, to look at it or to run it by hand."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from imageport.compose.build_engine import build_engine


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("verb", choices=["build"], help="what to do")
    parser.add_argument("destination", type=Path, help="the file to write (engine.pyz)")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Write the zipapp and print its identity."""
    built = build_engine(args.destination)
    facts = {"path": str(built.path), "sha256": built.sha256, "engine_id": built.engine_id}
    text = json.dumps(facts) if args.json else "\n".join(f"{k}: {v}" for k, v in facts.items())
    sys.stdout.write(text + "\n")
    return 0
