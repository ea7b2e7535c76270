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

from blocks import CONNECTIONS, TARGETS, CloudTarget, HypervisorConnection, Site
from imageport.citrix.vdisk_store import VdiskStore
from imageport.errors import InputError
from imageport.progress import EventSink, silent
from imageport.workflow.master import ExportPlace, export_target
from imageport.workflow.place import Workplace
from imageport.workflow.shared_source import SharedSource
from tasks._branch import current_branch
from tasks.models import MasterRef, Route
from tasks.options import PrepareOptions


@contextmanager
def workplace(route: Route, here: Site, events: EventSink = silent) -> Iterator[Workplace]:
    """Open state and cloud as ``here`` reaches them, for the target of ``route``."""
    branch = current_branch()
    branch.check_wanted(f"begin at '{route.place}'")
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
                events=events, cancelled=branch.ended,
            )  # fmt: skip


@contextmanager
def source_store(route: Route, here: Site) -> Iterator[VdiskStore]:
    """Open where the image of a route lies: the site's vDisk store, or its export folder."""
    with here.open_source(exports=route.exports) as store:
        yield store


@contextmanager
def shared_source(
    route: Route, image: str, readers: int, accept_lock: bool
) -> Iterator[SharedSource]:
    """Open where the image lies, once for several targets."""
    here = load_site(route.source)
    with SharedSource(
        lambda: source_store(route, here), image, readers, accept_lock=accept_lock
    ) as shared:
        yield shared


@contextmanager
def export_place(master: MasterRef, events: EventSink = silent) -> Iterator[ExportPlace]:
    """Open hypervisor, export folder and state as the source site reaches them."""
    here = load_site(master.site)
    connection = load_connection(master.connection)
    run = str(flow_run.get_id() or "by-hand")
    with (
        here.open_state() as state,
        here.open_source(exports=True) as store,
        connection.open_hypervisor(proxy=here.proxy, ca_bundle=here.ca_bundle) as hypervisor,
    ):
        yield ExportPlace(
            here.name, export_target(here.name), run, state, hypervisor, store, events=events
        )


def load_connection(reference: str) -> HypervisorConnection:
    """Load a connection block by ``slug/name``; the slug decides the class."""
    block = _load_kind(reference, CONNECTIONS, "hypervisor connection")
    return cast("HypervisorConnection", block)


def load_site(name: str) -> Site:
    """Load a Site block by name."""
    try:
        return cast("Site", Site.load(name))
    except ValueError as error:
        raise InputError(f"Cannot load the Site block '{name}': {error}.") from error


def load_target(reference: str) -> CloudTarget:
    """Load a target block by ``slug/name``; the slug decides the class."""
    return cast("CloudTarget", _load_kind(reference, TARGETS, "target"))


def _load_kind(reference: str, kinds: tuple[type[Block], ...], what: str) -> Block:
    try:
        block = Block.load(reference)
    except ValueError as error:
        raise InputError(f"Cannot load the {what} block '{reference}': {error}.") from error
    if isinstance(block, kinds):
        return block
    needed = " or ".join(f"{kind.get_block_type_slug()}/NAME" for kind in kinds)
    raise InputError(f"Bad {what} '{reference}': found no {what} block, needed {needed}.")


def saved_targets() -> list[str]:
    """Return every saved target block as ``slug/name``, whatever its cloud."""
    return _saved(TARGETS)


def saved_connections() -> list[str]:
    """Return every saved hypervisor connection as ``slug/name``."""
    return _saved(CONNECTIONS)


def _saved(kinds: tuple[type[Block], ...]) -> list[str]:
    found = []
    with get_client(sync_client=True) as client:
        for kind in kinds:
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


def route_between(
    source: Site | None, target: Site, cloud: CloudTarget, *, exports: bool = False
) -> Route:
    """Return the route over saved blocks; ``exports``: from the source's export folder."""
    return Route(
        source=source.saved_name if source else "",
        target=target.saved_name,
        cloud=f"{cloud.get_block_type_slug()}/{cloud.saved_name}",
        place=f"{cloud.place}/{target.name}",
        exports=exports,
    )
