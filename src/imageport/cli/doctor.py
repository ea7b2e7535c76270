"""``imageport doctor``: what is installed, reachable and permitted, and how to mend it.

A saved site is read by ``python -m flows.doctor``, a program of its own: this one never imports
Prefect.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import asdict

from imageport.cli.cloud_arguments import add_cloud_arguments, cloud_from, grant_at, state_from
from imageport.doctor.check import Check, all_well
from imageport.doctor.computer import computer_checks
from imageport.doctor.places import cloud_checks, folder_checks
from imageport.errors import InputError
from imageport.storage.folder import Folder
from imageport.storage.locate import credentials_from_environment, open_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "saved_site", nargs="?", default="", metavar="SITE",
        help="name of a Site block of the Prefect server at PREFECT_API_URL: its stores, state "
        "store, files, work pool and clouds are looked at from this computer",
    )  # fmt: skip
    parser.add_argument(
        "--target", action="append", default=[], metavar="SLUG/NAME",
        help="with SITE: a target block, for example imageport-azure-target/azure; without any, "
        "every saved one",
    )  # fmt: skip
    parser.add_argument(
        "--store", action="append", default=[], metavar="LOCATION",
        help="a vDisk store or other folder to reach: a path or smb://host/share/folder; "
        "user and password come from IMAGEPORT_SMB_USER and IMAGEPORT_SMB_PASSWORD",
    )  # fmt: skip
    add_cloud_arguments(parser, required=False)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    """Print one line per check; 1 when any failed."""
    if args.target and not args.saved_site:
        raise InputError("Bad arguments: found --target without SITE, needed both.")
    checks = computer_checks()
    for location in args.store:
        checks += _store_checks(location)
    if args.cloud:
        checks += cloud_checks(
            args.cloud,
            lambda: cloud_from(args, state_from(args), run="doctor"),
            lambda action: grant_at(args, action),
        )
    if args.saved_site:
        checks += _saved_site_checks(args.saved_site, args.target)
    if args.json:
        sys.stdout.write(json.dumps([asdict(check) for check in checks]) + "\n")
    for check in () if args.json else checks:
        sys.stdout.write(f"{check.mark:<4}  {check.name}: {check.found}\n")
        if not check.passed and check.mend:
            sys.stdout.write(f"      mend: {check.mend}\n")
    return 0 if all_well(checks) else 1


def _store_checks(location: str) -> list[Check]:
    def opened() -> Folder:
        return open_folder(location, credentials_from_environment())

    return folder_checks(location, opened)


def _saved_site_checks(site: str, targets: list[str]) -> list[Check]:
    """Ask the program that may import Prefect; its errors are raised here as its own."""
    argv = [sys.executable, "-m", "flows.doctor", site]
    for target in targets:
        argv += ["--target", target]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    try:
        answer = json.loads(done.stdout)
        checks = [Check(**item) for item in answer.get("checks", ())]
        told = answer.get("error")
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"Cannot look at site '{site}': the program that reads it ended with "
            f"{done.returncode}.",
            hint="Its output says why; the flows package must be installed beside imageport.",
            log=done.stderr[-4000:],
        ) from error
    if told:
        raise InputError(told["message"], hint=told["hint"])
    return checks
