"""Fan-out: one image to several targets at once, read once."""

from __future__ import annotations

from dataclasses import dataclass, field

from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from blocks import HypervisorConnection, Site
from flows._branches import in_branches
from flows._bring import Bringing, Brought, carried_out, looked_at
from flows._checked import checked_flow
from flows._destinations import Destination, routes_to
from flows._export import exported, master_of
from flows._hand_over import ALREADY_THERE
from flows._marks import MOST_ATTEMPTS, PARTIALLY_PUBLISHED
from imageport.citrix.names import check_vdisk_name
from imageport.citrix.vdisk_store import IfExists
from imageport.model import MIB
from imageport.workflow.choices import EnginePlace
from imageport.workflow.facts import image_name
from imageport.workflow.fan_out import Outcome
from tasks._places import shared_source
from tasks._reporting import artifact_key
from tasks.export import preflight_master, release_master
from tasks.models import MasterRef, Route, SourceIdentity
from tasks.options import PrepareOptions

LOOK_AT_ONCE = 3
"""Each preflight looks into the image by a small machine of its own, which was seen at 530 MiB: a
worker of 4 GiB bears three, and its other run's."""


@checked_flow(name="fan-out", flow_run_name="{image} to several targets", timeout_seconds=None)
def fan_out(  # noqa: PLR0913, PLR0917 - the run form
    source: Site,
    destinations: list[Destination],
    image: str,
    publish_name: str = "",
    if_exists: IfExists = IfExists.NEW_VERSION,
    options: PrepareOptions = PrepareOptions(),  # noqa: B008 - frozen, and the form shows it
    accept_lock: bool = False,
    keep_parent: bool = True,
    hypervisor: HypervisorConnection | None = None,
    snapshot: str = "",
) -> State[None]:
    """Bring one image to several targets at once with one read of the source.

    What a target already has is left alone there. A target that fails stops no other; the report
    is a table of targets. A run that was killed goes on where it was. The engine composes in the
    clouds.

    Args:
        source: Site whose vDisk store holds the image; this run works on its work pool.
        destinations: Where the image is to be ready.
        image: Name of the vDisk in the source store, or inventory path of the hypervisor's machine.
        publish_name: Name of the vDisk in the target stores; empty keeps the image's name.
        if_exists: What to do when a target store has that name with other content.
        options: What the compositing engine is asked to do.
        accept_lock: Read a vDisk although its lock does not tell who holds it.
        keep_parent: Keep the uploaded snapshots, so that the next upload sends only what changed.
        hypervisor: Where the image is a machine; none for a vDisk of the source's store.
        snapshot: Name of the machine's snapshot to export; empty takes one and removes it.
    """
    name = check_vdisk_name(publish_name) if publish_name else image_name(image)
    routes = routes_to(destinations, source, name, exports=hypervisor is not None)
    master = hypervisor and master_of(source, hypervisor, image, snapshot=snapshot)
    if (flow_run.get_run_count() or 0) > MOST_ATTEMPTS:
        if master:
            release_master(master)
        return Failed(message=f"Gave up: crashed {MOST_ATTEMPTS} times.")
    found = _exported(routes, master, options) if master else _AtSource(image)
    if not publish_name:
        name = image_name(found.vdisk)
    chosen = [
        Bringing(
            f"{name}{one.suffix}", if_exists, options, keep_parent, EnginePlace.CLOUD,
            accept_lock, found.source_key,
        )
        for one in destinations
    ]  # fmt: skip
    return _brought(_Targets(routes, destinations, chosen, found))


@dataclass(frozen=True, slots=True)
class _AtSource:
    """The image where it lies at the source site."""

    vdisk: str
    source_key: str = ""
    """The content that was exported for this run; empty where nothing had to be exported."""
    exported_now: bool = False
    refused: dict[int, Exception] = field(default_factory=dict)
    """Numbers of the targets that refused it before it was exported, and why."""


class _AllRefuseError(Exception):
    """No target takes the image: there is nothing to export it for."""


def _exported(routes: list[Route], master: MasterRef, options: PrepareOptions) -> _AtSource:
    """Export a master image if any target takes it; each is asked before."""
    refused: dict[int, Exception] = {}

    def look(key: str) -> None:
        asked = in_branches(
            [route.place for route in routes],
            lambda number: preflight_master(routes[number], master, key, options),
        )
        refused.update((number, one.error) for number, one in enumerate(asked) if one.error)
        if len(refused) == len(routes):
            raise _AllRefuseError

    try:
        found, exported_now = exported(master, look)
    except _AllRefuseError:
        return _AtSource(master.vm, refused=refused)
    return _AtSource(found.image, found.source_key, exported_now, refused)


@dataclass(frozen=True, slots=True)
class _Targets:
    """What is brought where; one entry of each list for each target."""

    routes: list[Route]
    destinations: list[Destination]
    chosen: list[Bringing]
    image: _AtSource

    def look(self, number: int) -> SourceIdentity:
        if number in self.image.refused:
            raise self.image.refused[number]
        return looked_at(self.routes[number], self.image.vdisk, self.chosen[number])

    def carry_out(self, number: int, identity: SourceIdentity) -> Brought:
        where = self.destinations[number]
        route, chosen = self.routes[number], self.chosen[number]
        return carried_out(route, where.site, where.cloud, identity, self.image.vdisk, chosen)


def _brought(targets: _Targets) -> State[None]:
    """Bring the image to every target and say how it went at each."""
    names = [route.place for route in targets.routes]
    identities = in_branches(names, targets.look, at_once=LOOK_AT_ONCE)
    going = [number for number, item in enumerate(identities) if item.made is not None]
    route, vdisk = targets.routes[0], targets.image.vdisk
    with shared_source(route, vdisk, len(going), targets.chosen[0].accept_lock) as shared:

        def work(position: int) -> Brought:
            number = going[position]
            identity = identities[number].made
            if identity is None:  # only those that have one are going
                raise AssertionError
            return targets.carry_out(number, identity)

        done = in_branches([names[number] for number in going], work, shared)
        bytes_read = shared.bytes_read
    outcomes: list[Outcome[Brought]] = [
        Outcome(item.target, None, item.error, item.seconds) for item in identities
    ]
    for number, outcome in zip(going, done, strict=True):
        outcomes[number] = outcome
    rows = [_row(outcome) for outcome in outcomes]
    create_table_artifact(
        key=artifact_key("targets", image_name(vdisk)),
        table=rows,
        description=f"{vdisk}: {bytes_read // MIB} MiB read for {len(rows)} targets.",
    )
    return _state(rows, outcomes, exported_now=targets.image.exported_now)


def _row(outcome: Outcome[Brought]) -> dict[str, object]:
    """Return a target's row: what is long comes last, for the page cuts it off."""
    brought = outcome.made
    figures = brought.figures if brought else {}
    ended = "failed" if brought is None else "published" if brought.moved else "already there"
    return {
        "target": outcome.target,
        "outcome": ended,
        "MiB read": int(figures.get("bytes_read", 0)) // MIB,
        "MiB sent": int(figures.get("bytes_sent", 0)) // MIB,
        "upload s": round(figures.get("seconds", 0.0)),
        "all s": round(outcome.seconds),
        "text": brought.published.text if brought else outcome.words,
    }


def _state(
    rows: list[dict[str, object]], outcomes: list[Outcome[Brought]], *, exported_now: bool
) -> State[None]:
    message = "\n".join(f"{row['target']}: {row['outcome']}: {row['text']}" for row in rows)
    failed = [outcome for outcome in outcomes if outcome.made is None]
    if failed:
        some = len(failed) < len(outcomes)
        return Failed(name=PARTIALLY_PUBLISHED if some else None, message=message)
    moved = exported_now or any(outcome.made and outcome.made.moved for outcome in outcomes)
    return Completed(name=None if moved else ALREADY_THERE, message=message)
