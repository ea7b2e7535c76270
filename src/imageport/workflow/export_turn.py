"""Exports take turns: one run at a time works on an image, and one on a machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace

from imageport.errors import LeaseHeld, TransferCancelled
from imageport.hypervisor import Vm
from imageport.progress import Stage
from imageport.state.leases import Lease
from imageport.workflow.export_bytes import STAGE
from imageport.workflow.facts import image_name
from imageport.workflow.master import ExportPlace, Master
from imageport.workflow.place import LEASE_SECONDS

WAIT_SECONDS = 5.0
"""Between two looks at a lease that another run holds: little against an export's length."""


@contextmanager
def in_turn(place: ExportPlace, master: Master) -> Iterator[ExportPlace]:
    """Give the place for as long as image and machine are this run's; waits for other exports.

    An export takes hours, and whoever wants the same image for another cloud wants its result. A
    killed run's lease runs out by itself.

    Raises:
        TransferCancelled: while waiting.
    """
    with ExitStack() as held:
        for turn in (holding_image(place, master.image), holding_machine(place, master.vm)):
            place = replace(place, cancelled=place.asked_under(_waited_for(place, held, turn)))
        yield place


def holding_image(place: ExportPlace, image: str) -> Callable[[], AbstractContextManager[Lease]]:
    """Return how to hold an image's exports at this site, however its name is spelled."""
    return lambda: place.holding(image_name(image))


def holding_machine(place: ExportPlace, vm: Vm) -> Callable[[], AbstractContextManager[Lease]]:
    """Return how to hold a machine: what killed exports left there is told from what is alive."""
    name = f"machine {vm.id}@{place.target}"
    return lambda: place.state.lease(name, place.run, LEASE_SECONDS)


def _waited_for(
    place: ExportPlace, held: ExitStack, turn: Callable[[], AbstractContextManager[Lease]]
) -> Lease:
    told = False
    while True:
        try:
            return held.enter_context(turn())
        except LeaseHeld as error:
            if not told:
                Stage(STAGE, place.events).note(f"waiting for another export: {error.message}")
                told = True
        if place.cancelled():
            raise TransferCancelled("Cannot export: it was cancelled while another export ran.")
        time.sleep(WAIT_SECONDS)
