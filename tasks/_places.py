"""From names of saved blocks to open shares, state and cloud, for the length of one task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run

from blocks import TARGETS, CloudTarget, Site
from imageport.errors import InputError
from imageport.progress import EventSink, silent
from imageport.workflow.place import Workplace
from tasks.models import Route
from tasks.options import PrepareOptions


@contextmanager
def workplace(route: Route, here: Site, events: EventSink = silent) -> Iterator[Workplace]:
    """Open state and cloud as ``here`` reaches them, for the target of ``route``."""
    cloud = load_target(route.cloud)
    target = load_site(route.target)
    run = str(flow_run.get_id() or "by-hand")
    with here.open_state() as state:
        opened = cloud.open_cloud(
            state.ledger, run, site=target.name, proxy=here.proxy, ca_bundle=here.ca_bundle
        )
        with closing(opened):
            yield Workplace(
                site=target.name, target=route.place, run=run, state=state, cloud=opened,
                events=events,
            )  # fmt: skip


def load_site(name: str) -> Site:
    """Load a Site block by name."""
    try:
        return cast("Site", Site.load(name))
    except ValueError as error:
        raise InputError(f"Cannot load the Site block '{name}': {error}.") from error


def load_target(reference: str) -> CloudTarget:
    """Load a target block by ``slug/name``; the slug decides the class."""
    try:
        block = Block.load(reference)
    except ValueError as error:
        raise InputError(f"Cannot load the target block '{reference}': {error}.") from error
    if not isinstance(block, TARGETS):
        needed = " or ".join(f"{kind.get_block_type_slug()}/NAME" for kind in TARGETS)
        raise InputError(f"Bad target '{reference}': found no target block, needed {needed}.")
    return block


def saved_targets() -> list[str]:
    """Return every saved target block as ``slug/name``, whatever its cloud."""
    found = []
    with get_client(sync_client=True) as client:
        for kind in TARGETS:
            slug = kind.get_block_type_slug()
            try:
                documents = client.read_block_documents_by_type(slug, include_secrets=False)
            except ObjectNotFound:  # its type was never registered
                continue
            found += [f"{slug}/{document.name}" for document in documents if document.name]
    return sorted(found)


@contextmanager
def payload_for(route: Route, here: Site, options: PrepareOptions) -> Iterator[Path | None]:
    """Open the operator's files of ``here``; None when the target's cloud needs none of them."""
    if not options.uses_payload(route.cloud_name):
        yield None
        return
    with here.open_payload() as payload:
        yield payload


def route_between(source: Site | None, target: Site, cloud: CloudTarget) -> Route:
    """Return the route over saved blocks."""
    return Route(
        source=source.saved_name if source else "",
        target=target.saved_name,
        cloud=f"{cloud.get_block_type_slug()}/{cloud.saved_name}",
        place=f"{cloud.place}/{target.name}",
    )
