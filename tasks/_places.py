"""From names of saved blocks to open shares, state and cloud, for the length of one task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from prefect.blocks.core import Block
from prefect.runtime import flow_run

from blocks import AwsTarget, Site
from imageport.errors import InputError
from imageport.progress import EventSink, silent
from imageport.workflow.place import Workplace
from tasks.models import Route


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
        yield Workplace(
            site=target.name, target=route.place, run=run, state=state, cloud=opened, events=events
        )


def load_site(name: str) -> Site:
    """Load a Site block by name."""
    try:
        return cast("Site", Site.load(name))
    except ValueError as error:
        raise InputError(f"Cannot load the Site block '{name}': {error}.") from error


def load_target(reference: str) -> AwsTarget:
    """Load a target block by ``slug/name``; the slug decides the class."""
    try:
        block = Block.load(reference)
    except ValueError as error:
        raise InputError(f"Cannot load the target block '{reference}': {error}.") from error
    if not isinstance(block, AwsTarget):
        raise InputError(f"Bad target '{reference}': found no target block, needed one.")
    return block


def route_between(source: Site | None, target: Site, cloud: AwsTarget) -> Route:
    """Return the route over saved blocks."""
    return Route(
        source=source.saved_name if source else "",
        target=target.saved_name,
        cloud=f"{cloud.get_block_type_slug()}/{cloud.saved_name}",
        place=f"{cloud.place}/{target.name}",
    )
