"""Questions to the catalogue and the cloud, and what the janitor does."""

from __future__ import annotations

from prefect import task
from prefect.artifacts import create_table_artifact

from imageport.model import GenerationRole
from imageport.workflow.clean_up import clean_up as run_clean_up
from imageport.workflow.clean_up import clear_store
from imageport.workflow.generations import engine_place, is_current
from imageport.workflow.master import images_without_machine
from imageport.workflow.publish import published_as
from tasks._places import load_site, load_target, saved_targets, workplace
from tasks._policies import RETRYING
from tasks._reporting import artifact_key
from tasks.models import PublicationResult, Route


@task(name="still-there", task_run_name="still there? {generation_id}", **RETRYING)
def still_there(route: Route, generation_id: str) -> bool:
    """Tell whether catalogue and cloud both have a generation; asked before a cache hit counts."""
    with workplace(route, load_site(route.source or route.target)) as place:
        return is_current(place, generation_id)


@task(name="published-now", task_run_name="published? {image}", **RETRYING)
def published_now(route: Route, image: str, name: str) -> PublicationResult | None:
    """Return the newest prepared generation's vDisk in the target store, if it is untouched."""
    here = load_site(route.target)
    with workplace(route, here) as place, here.store.open_store() as store:
        newest = place.state.catalogue.latest(image, place.target, GenerationRole.PREPARED)
        found = published_as(place, newest.id, store, name) if newest else None
    return PublicationResult.of(found, already_there=True) if found else None


@task(name="images-at", task_run_name="images at {route.place}", **RETRYING)
def images_at(route: Route) -> list[str]:
    """Return every vDisk that was ever prepared for the target, but for exported machines."""
    here = load_site(route.source)
    with here.open_state() as state:
        return images_without_machine(state, route.place, here.name)


@task(name="inventory", **RETRYING)
def inventory(route: Route) -> None:
    """Show what the catalogue has for the target as a table."""
    with workplace(route, load_site(route.target)) as place:
        found = place.state.catalogue.list(target=place.target)
    rows = [
        {
            "image": generation.image,
            "generation": generation.id,
            "role": generation.role.value,
            "created": generation.created,
            "engine at": engine_place(generation).value if "composed" in generation.details else "",
            "GiB": round(generation.size_bytes / 2**30, 1),
            "published as": ", ".join(item.file_name for item in generation.publications),
        }
        for generation in sorted(found, key=lambda item: (item.image, item.created))
    ]
    create_table_artifact(
        key=artifact_key("images", route.place),
        table=rows,
        description=f"Images at {route.place}.",
    )


@task(name="targets-of", task_run_name="targets of {site}", **RETRYING)
def targets_of(site: str) -> list[str]:
    """Return the saved target blocks at which the site has, or may have left, anything.

    Catalogue and ledger say so: an intent is written before anything is made.
    """
    here = load_site(site)
    with here.open_state() as state:
        images = {item.target for item in state.catalogue.list()}
        tokens = [entry.token for entry in state.ledger.open_entries(site=here.name)]
    found = []
    for reference in saved_targets():
        place = load_target(reference).place
        if f"{place}/{here.name}" in images or any(t.startswith(f"{place}/") for t in tokens):
            found.append(reference)
    return found


@task(name="clean-up", **RETRYING)
def clean_up(route: Route, run: str = "") -> list[str]:
    """Delete what ended runs left in cloud and target store; returns what was deleted."""
    here = load_site(route.target)
    with workplace(route, here) as place:
        deleted = run_clean_up(place.state, place.cloud, place.site, run=run)
        with here.store.open_store() as store:
            return deleted + clear_store(place.state, store, at_once=bool(run))
