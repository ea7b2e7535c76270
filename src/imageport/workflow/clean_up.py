"""What the janitor does: remove from cloud and store what ended runs left there."""

from __future__ import annotations

from datetime import UTC, datetime

from imageport.citrix.vdisk_store import VdiskStore
from imageport.cloud import Cloud
from imageport.clouds.sweep import sweep
from imageport.errors import LeaseHeld
from imageport.state.store import StateStore

RESUME_SECONDS = 600.0
"""A crashed run is resumed after a minute or two; after ten nobody comes back for its half."""


def clean_up(
    state: StateStore, cloud: Cloud, site: str, *, now: datetime | None = None, run: str = ""
) -> list[str]:
    """Delete what is left and return a line for each thing deleted: kind, id, what went with it.

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
    return [str(resource) for resource in sweep(cloud, state, site, moment, run=run)]


def clear_store(
    state: StateStore, store: VdiskStore, *, now: datetime | None = None, at_once: bool = False
) -> list[str]:
    """Discard the half files of publishes that ended, and return their names.

    Nothing while any publish into this store holds its lease. A half that was written to lately
    may belong to a run that is about to be resumed; ``at_once`` takes it all the same.
    """
    mark = f">{store.location}"
    if any(lease.rpartition("@")[0].endswith(mark) for lease in state.leases.holders()):
        return []
    newest_ns = ((now or datetime.now(UTC)).timestamp() - RESUME_SECONDS) * 1e9
    discarded = []
    for leftover in store.leftovers():
        stat = store.folder.stat(leftover.part_name)
        if stat is not None and (at_once or stat.last_write_ns < newest_ns):
            store.discard(leftover.part_name)
            discarded.append(leftover.part_name)
    return discarded
