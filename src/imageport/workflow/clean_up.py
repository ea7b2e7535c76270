"""What the janitor does: remove from the cloud what ended runs left there."""

from __future__ import annotations

from datetime import UTC, datetime

from imageport.cloud import Cloud
from imageport.clouds.sweep import sweep
from imageport.errors import LeaseHeld
from imageport.state.store import StateStore


def clean_up(
    state: StateStore, cloud: Cloud, site: str, *, now: datetime | None = None, run: str = ""
) -> list[str]:
    """Delete what is left and return one ``kind id`` for each thing deleted.

    With ``run``, everything of that ended run at once; without, everything of the site that is
    past its expiry. Never what the catalogue holds, never what a live lease protects.

    Raises:
        LeaseHeld: the ended run was killed so lately that its lease has not run out; try again.
        CloudError: see `sweep`.
    """
    held = [lease for lease, owner in state.leases.holders().items() if run and owner == run]
    if held:
        raise LeaseHeld(f"Cannot clean up after run '{run}': it still holds '{held[0]}'.")
    moment = now or datetime.now(UTC)
    if run:
        # An ended run renews nothing any more: its resources count as expired now.
        state.ledger.renew(run, 0.0)
    deleted = sweep(cloud, state, site, moment, run=run)
    return [f"{resource.kind} {resource.id}" for resource in deleted]
