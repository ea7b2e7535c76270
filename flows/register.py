"""``python -m flows.register``: block types, blocks, work pools, deployments and automations.

Every part may be run again: what exists is replaced by what is given here and in prefect.yaml.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker
from prefect_aws import AwsCredentials  # type: ignore[import-untyped]
from prefect_gcp import GcpCredentials  # type: ignore[import-untyped]

from blocks import BLOCKS, TARGETS
from flows._automations import HEARTBEAT_SECONDS, automations
from imageport.errors import ImageportError, InputError

KINDS: tuple[type[Block], ...] = (AwsCredentials, GcpCredentials, *BLOCKS)
"""What may be saved: the blocks of this project, and those of Prefect's own that targets nest."""
REFERENCE = "$block"
"""In a block's values: ``{"$block": "slug/name"}`` nests a block that is saved already."""


def main(arguments: list[str] | None = None) -> int:
    """Register what the arguments ask for; everything without any."""
    parser = argparse.ArgumentParser(prog="python -m flows.register", description=__doc__)
    parser.add_argument("--blocks", type=Path, help="JSON file of blocks to save")
    parser.add_argument("--pools", action="store_true", help="create or update the work pools")
    parser.add_argument("--deploy", action="store_true", help="deployments and automations")
    parser.add_argument(
        "--target", default="", metavar="SLUG/NAME",
        help="target block that deployments take by default, instead of the one in the file",
    )  # fmt: skip
    parser.add_argument("--prefect-file", type=Path, default=_prefect_file(), help="%(default)s")
    args = parser.parse_args(arguments)
    try:
        _register(args)
    except ImageportError as error:
        sys.stderr.write(f"{error.fields.get('log', '')}\n{error}\n")
        return 1
    return 0


def _register(args: argparse.Namespace) -> None:
    register_types()
    if args.blocks:
        save_blocks(json.loads(args.blocks.read_text()))
    if args.pools:
        make_pools(args.prefect_file)
    if args.deploy:
        deploy(args.prefect_file, args.target)
        make_automations()


def register_types() -> None:
    """Make the block types of this project, and what they nest, known to the server."""
    for block in KINDS:
        block.register_type_and_schema()


def save_blocks(documents: list[dict[str, Any]]) -> None:
    """Save blocks given as ``{"type": slug, "name": …, "values": {…}}``, in the order given."""
    classes = {block.get_block_type_slug(): block for block in KINDS}
    for document in documents:
        kind = classes.get(document["type"])
        if kind is None:
            raise InputError(
                f"Cannot save block '{document['name']}': found type {document['type']!r}, "
                f"needed one of {sorted(classes)}."
            )
        kind(**_resolved(document["values"])).save(document["name"], overwrite=True)


def _resolved(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {REFERENCE}:
            return Block.load(value[REFERENCE])
        return {name: _resolved(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_resolved(inner) for inner in value]
    return value


def make_pools(prefect_file: Path) -> None:
    """Create or update every work pool that prefect.yaml names."""
    wanted = {item["work_pool"]["name"] for item in _deployments(prefect_file)}
    template = pool_template()
    with get_client(sync_client=True) as client:
        for name in sorted(wanted):
            _make_pool(client, name, template)


def _make_pool(client: SyncPrefectClient, name: str, template: dict[str, Any]) -> None:
    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        pool = WorkPoolCreate(name=name, type="process", base_job_template=template)
        client.create_work_pool(pool)
    else:
        client.update_work_pool(name, WorkPoolUpdate(base_job_template=template))


def pool_template() -> dict[str, Any]:
    """Return the job template of a process pool with two changes that crashes taught.

    A run whose output goes through its worker dies with it, and its own death is not noticed
    while a child holds the pipe. Heartbeats at 30 s let the server see a silent run in 90 s.
    """
    template: dict[str, Any] = ProcessWorker.get_default_base_job_template()
    properties = template["variables"]["properties"]
    properties["stream_output"]["default"] = False
    properties["env"]["default"] = {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}
    return template


def deploy(prefect_file: Path, target: str = "") -> None:
    """Create or update every deployment of prefect.yaml by Prefect's own command."""
    with TemporaryDirectory(prefix="imageport-deploy-") as scratch:
        # A copy: Prefect writes nothing beside the operator's file, and the default may differ.
        document = with_target(yaml.safe_load(prefect_file.read_text()), target)
        Path(scratch, "prefect.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        argv = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
        done = subprocess.run(argv, cwd=scratch, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(
            f"Cannot deploy '{prefect_file}': prefect ended with {done.returncode}.",
            log=(done.stdout + done.stderr)[-4000:],
        )


def with_target(document: Any, target: str) -> Any:
    """Return a document of prefect.yaml in which every reference to a target block names this."""
    slugs = {kind.get_block_type_slug() for kind in TARGETS}
    if target and target.partition("/")[0] not in slugs:
        raise InputError(f"Bad target: found '{target}', needed SLUG/NAME with one of {slugs}.")
    if isinstance(document, list):
        return [with_target(inner, target) for inner in document]
    if not isinstance(document, dict):
        return document
    reference = document.get("block_document_slug", "")
    if target and reference.partition("/")[0] in slugs:
        return {"block_document_slug": target}
    return {name: with_target(inner, target) for name, inner in document.items()}


def make_automations() -> None:
    """Create this project's automations anew; others are not touched."""
    with get_client(sync_client=True) as client:
        janitor = client.read_deployment_by_name("janitor/cloud")
        wanted = automations(janitor.id)
        for automation in wanted:
            for existing in client.read_automations_by_name(automation.name):
                client.delete_automation(existing.id)
    for automation in wanted:
        automation.create()


def _deployments(prefect_file: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load(prefect_file.read_text())["deployments"])


def _prefect_file() -> Path:
    return Path(__file__).parents[1] / "prefect.yaml"


if __name__ == "__main__":
    sys.exit(main())
