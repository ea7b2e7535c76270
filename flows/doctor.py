"""Doctor: what is installed, reachable and permitted for a site, and how to mend what is not.

The flow looks from the site's own worker; ``python -m flows.doctor SITE`` looks from this shell,
for ``imageport doctor``.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

import httpx
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.settings import PREFECT_API_URL
from prefect.states import Completed, Failed

from blocks import CloudTarget, Site
from flows._checked import checked_flow
from flows._hand_over import reference
from imageport.doctor.check import Check, all_well
from imageport.errors import ImageportError, InputError
from tasks._places import load_site
from tasks._reporting import artifact_key
from tasks.site_checks import look_at_site, site_checks


@checked_flow(name="site-doctor", flow_run_name="{site.name}")
def site_doctor(site: Site, cloud: CloudTarget | None = None) -> State[None]:
    """Look at everything that runs of a site need, and show it as a table.

    Args:
        site: Site to look at; this run works on its work pool, with its worker's identity.
        cloud: Target to try; empty tries every saved one.
    """
    targets = [_slug(cloud)] if cloud else []
    checks = look_at_site(site.saved_name, targets)
    create_table_artifact(
        key=artifact_key("doctor", site.name),
        table=[check.row() for check in checks],
        description=f"What runs of {site.name} need, seen from its worker.",
    )
    return _verdict(checks)


def _verdict(checks: list[Check]) -> State[None]:
    bad = [f"{check.name}: {check.found}" for check in checks if check.mark == "FAIL"]
    if bad:
        lines = "\n".join(bad)
        return Failed(message=f"{len(bad)} of {len(checks)} checks failed:\n{lines}")
    return Completed(message=f"All {len(checks)} checks passed.")


def _slug(target: CloudTarget) -> str:
    return str(reference(target)["$ref"]["block_document_slug"])


def main(arguments: list[str] | None = None) -> int:
    """Look at a saved site from here and write the checks as JSON."""
    parser = argparse.ArgumentParser(prog="python -m flows.doctor", description=__doc__)
    parser.add_argument("site", help="name of a Site block")
    parser.add_argument("--target", action="append", default=[], metavar="SLUG/NAME")
    args = parser.parse_args(arguments)
    try:
        checks = _checks(args.site, args.target)
    except ImageportError as error:
        sys.stdout.write(json.dumps({"error": error.as_dict()}) + "\n")
        return 1
    sys.stdout.write(json.dumps({"checks": [asdict(check) for check in checks]}) + "\n")
    return 0 if all_well(checks) else 1


def _checks(site: str, targets: list[str]) -> list[Check]:
    url = PREFECT_API_URL.value()
    hint = "Set PREFECT_API_URL, and PREFECT_API_AUTH_STRING to user:password."
    if not url:
        raise InputError(f"Cannot look at site '{site}': no Prefect server is named.", hint=hint)
    try:
        return site_checks(load_site(site), targets)
    except httpx.HTTPError as error:
        raise InputError(
            f"Cannot ask the Prefect server at '{url}': {type(error).__name__}.", hint=hint
        ) from error


if __name__ == "__main__":
    sys.exit(main())
