"""Where images are brought to, as run forms that take several places show it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from pydantic import BaseModel, ConfigDict, Field

from blocks import CloudTarget, Site
from imageport.citrix.names import check_vdisk_name
from imageport.errors import InputError
from tasks._places import route_between
from tasks.models import Route


class Destination(BaseModel):
    """One place that images are brought to."""

    model_config = ConfigDict(extra="forbid")

    site: Site = Field(title="Target site", description="Site whose vDisk store is published to.")
    cloud: CloudTarget = Field(title="Cloud", description="Account and region to prepare in.")
    suffix: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="What the vDisk's name ends in there, for example -azure; needed where two "
        "destinations share a store.",
    )


def routes_to(
    destinations: list[Destination], source: Site, name: str, *, exports: bool
) -> list[Route]:
    """Return the route to each place that a vDisk is to be at under ``name`` and its suffix.

    Raises:
        InputError: there is none, some get in each other's way, or a store would refuse the name;
            tells all of it.
    """
    if not destinations:
        raise InputError("Bad destinations: found none, needed one or more.")
    routes = [route_between(source, one.site, one.cloud, exports=exports) for one in destinations]
    problems, vdisks = [], []
    for one in destinations:
        try:
            vdisk = check_vdisk_name(f"{name}{one.suffix}")
        except InputError as error:
            problems.append(error.message)
        else:
            vdisks.append(f"'{vdisk}' in {one.site.store.location}".casefold())  # as Windows does
    places, stores = _twice(route.place for route in routes), _twice(vdisks)
    if twice := places + stores:
        problems.append(f"Found {' and '.join(twice)} more than once, needed each once.")
    hints = ["Take out a destination that is there twice."] if places else []
    hints += ["Give destinations that share a store a suffix each."] if stores else []
    if problems:
        raise InputError(
            f"Bad destinations: {' '.join(problems)}",
            hint=" ".join(hints),
            problems=problems,
        )
    return routes


def _twice(found: Iterable[str]) -> list[str]:
    return [one for one, count in Counter(found).items() if count > 1]
