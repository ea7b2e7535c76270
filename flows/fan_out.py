"""Fan-out: one image to several targets at once, read once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from blocks import HypervisorConnection, Site
from flows._branches import in_branches
from flows._bring import Bringing, Brought, carried_out, looked_at
from flows._checked import checked_flow
from flows._destinations import Destination
from flows._export import exported, master_of
from flows._hand_over import ALREADY_THERE
from flows._marks import MOST_ATTEMPTS, PARTIALLY_PUBLISHED
from imageport.citrix.vdisk_store import IfExists
from imageport.errors import InputError
from imageport.model import MIB
from imageport.workflow.choices import EnginePlace
from imageport.workflow.facts import image_name
from imageport.workflow.fan_out import Outcome
from tasks._places import route_between, shared_source
from tasks._reporting import artifact_key
from tasks.export import release_master
from tasks.models import Route, SourceIdentity
from tasks.options import PrepareOptions


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
    routes = _routes(source, destinations, exports=hypervisor is not None)
    master = hypervisor and master_of(source, hypervisor, image, snapshot=snapshot)
    if (flow_run.get_run_count() or 0) > MOST_ATTEMPTS:
        if master:
            release_master(master)
        return Failed(message=f"Gave up: crashed {MOST_ATTEMPTS} times.")
    vdisk, key, exported_now = image, "", False
    if master:
        found, exported_now = exported(routes[0], master, options)
        vdisk, key = found.image, found.source_key
    name = publish_name or image_name(vdisk)
    chosen = [
        Bringing(
            f"{name}{one.suffix}", if_exists, options, keep_parent, EnginePlace.CLOUD,
            accept_lock, key,
        )
        for one in destinations
    ]  # fmt: skip
    return _brought(_Targets(routes, destinations, chosen, vdisk), exported_now=exported_now)


@dataclass(frozen=True, slots=True)
class _Targets:
    """What is brought where; one entry of each list for each target."""

    routes: list[Route]
    destinations: list[Destination]
    chosen: list[Bringing]
    vdisk: str

    def look(self, number: int) -> SourceIdentity:
        return looked_at(self.routes[number], self.vdisk, self.chosen[number])

    def carry_out(self, number: int, identity: SourceIdentity) -> Brought:
        where = self.destinations[number]
        route, chosen = self.routes[number], self.chosen[number]
        return carried_out(route, where.site, where.cloud, identity, self.vdisk, chosen)


def _routes(source: Site, destinations: list[Destination], *, exports: bool) -> list[Route]:
    """Return the route to each destination; `InputError` for those that get in each other's way."""
    if not destinations:
        raise InputError("Bad destinations: found none, needed one or more.")
    routes = [route_between(source, one.site, one.cloud, exports=exports) for one in destinations]
    places = Counter(route.place for route in routes)
    names = Counter((one.site.store.location, one.suffix.lower()) for one in destinations)
    twice = [place for place, count in places.items() if count > 1]
    twice += [
        f"the store {store} under one name" for (store, _), count in names.items() if count > 1
    ]
    if twice:
        raise InputError(
            f"Bad destinations: found {' and '.join(twice)} more than once, needed each once.",
            hint="Give destinations that share a store a suffix each.",
        )
    return routes


def _brought(targets: _Targets, *, exported_now: bool) -> State[None]:
    """Bring the image to every target and say how it went at each."""
    names = [route.place for route in targets.routes]
    identities = in_branches(names, targets.look)
    going = [number for number, item in enumerate(identities) if item.made is not None]
    chosen = targets.chosen[0]
    with shared_source(targets.routes[0], targets.vdisk, len(going), chosen.accept_lock) as shared:

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
        key=artifact_key("targets", image_name(targets.vdisk)),
        table=rows,
        description=f"{targets.vdisk}: {bytes_read // MIB} MiB read for {len(rows)} targets.",
    )
    return _state(rows, outcomes, exported_now=exported_now)


def _row(outcome: Outcome[Brought]) -> dict[str, object]:
    place, brought = outcome.target, outcome.made
    if brought is None:
        return {"target": place, "outcome": "failed", "text": outcome.words} | _figures({}, outcome)
    figures = brought.uploaded.figures if brought.uploaded else {}
    ended = "published" if brought.moved else "already there"
    return {"target": place, "outcome": ended, "text": brought.published.text} | _figures(
        figures, outcome
    )


def _figures(figures: dict[str, float], outcome: Outcome[Brought]) -> dict[str, object]:
    return {
        "MiB read": int(figures.get("bytes_read", 0)) // MIB,
        "MiB sent": int(figures.get("bytes_sent", 0)) // MIB,
        "upload s": round(figures.get("seconds", 0.0)),
        "all s": round(outcome.seconds),
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
