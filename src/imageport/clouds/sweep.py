"""The janitor: deletes from a cloud what runs that ended, or died, left there.

It touches only its own site, only what is past its expiry, only what belongs to no run that holds
a lease, and never what the catalogue names. Of finished images it deletes only those that the
ledger still counts as somebody's unfinished business: a state store that knows nothing of them
(the wrong folder, a restored backup) is no reason to delete a golden image. What somebody may
still read or write through a URL that was given out is a resource of its own: it
is taken back although the image itself stays.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime

from imageport.cloud import Cloud, CloudResource
from imageport.clouds.tags import (
    LASTING_ROLES,
    TAG_EXPIRES,
    TAG_ROLE,
    TAG_RUN,
    TAG_SITE,
    TAG_TOKEN,
)
from imageport.errors import CloudError, ImageportError, StateError
from imageport.model import GenerationRole
from imageport.state.records import LedgerEntry
from imageport.state.store import StateStore

DELETION_ORDER = (
    "access",
    "instance",
    "network-interface",
    "machine-image",
    "volume",
    "disk",
    "snapshot",
    "security-group",
    "object",
)
"""Who holds another comes first: access given out holds disks and snapshots, machines hold their
interfaces, volumes and groups, images hold snapshots."""


def sweep(
    cloud: Cloud,
    state: StateStore,
    site: str,
    now: datetime,
    *,
    dry_run: bool = False,
    run: str = "",
) -> list[CloudResource]:
    """Delete what is left and return it, with notes; with ``dry_run`` only return it.

    Args:
        cloud: Opened for ``site``.
        state: The site's state store: its ledger, leases and catalogue decide.
        site: The only site whose resources are looked at.
        now: The time to compare expiries with.
        dry_run: Delete nothing and close no ledger entry.
        run: A run known to have ended: everything of it, expired or not, and nothing else.

    Raises:
        CloudError: something could not be deleted; everything else was, and ``fields`` has both
            lists (``deleted``, ``left``). The next sweep tries again.
        StateError: likewise, because of something damaged in the cloud.
    """
    view = _View.of(cloud, state, site, now, run)
    listed = cloud.list_ours(site)
    doomed = sorted(
        (resource for resource in listed if view.dooms(resource)),
        key=lambda resource: DELETION_ORDER.index(resource.kind),
    )
    if dry_run:
        return doomed
    deleted, failed = _delete(cloud, state, view, doomed)
    _close_entries(state, view, listed)
    if failed:
        first = failed[0][1]
        first.fields["deleted"] = [item.id for item in deleted]
        first.fields["left"] = [item.id for item, _ in failed]
        raise first
    return deleted


@dataclass(frozen=True, slots=True)
class _View:
    """What ledger, leases and catalogue say at this moment."""

    site: str
    now: datetime
    run: str
    entries: tuple[LedgerEntry, ...]
    live_runs: frozenset[str]
    catalogued: frozenset[str]
    """Folded: some clouds answer with their ids in another case than they were given."""

    @classmethod
    def of(cls, cloud: Cloud, state: StateStore, site: str, now: datetime, run: str) -> _View:
        # Leases before catalogue: a run that finishes in between is then still seen as alive.
        live = frozenset(state.leases.holders().values())
        entries = [
            entry
            for entry in state.ledger.open_entries(site=site)
            if entry.token.startswith(f"{cloud.scope}/")
        ]
        handles = [
            generation.handle
            for generation in state.catalogue.list()
            if generation.role
            is not GenerationRole.SOURCE  # a file at the site, nothing of a cloud
        ]
        catalogued = frozenset(value.casefold() for handle in handles for value in handle.values())
        return cls(site, now, run, tuple(entries), live, catalogued)

    def dooms(self, resource: CloudResource) -> bool:
        """Tell whether nothing speaks for the resource."""
        tags = resource.tags
        entries = self.entries_of(resource)
        if tags.get(TAG_SITE) != self.site or self.keeps(resource.id):
            return False
        if tags.get(TAG_ROLE) in LASTING_ROLES and not entries:
            return False
        if entries:
            return all(self.ended(entry) for entry in entries)
        return self._ended(tags.get(TAG_RUN, ""), tags.get(TAG_EXPIRES, ""))

    def keeps(self, resource_id: str) -> bool:
        """Tell whether the catalogue names a resource."""
        return resource_id.casefold() in self.catalogued

    def ended(self, entry: LedgerEntry) -> bool:
        """Tell whether the run of an entry is over; the ledger is newer than any tag."""
        return self._ended(entry.run, entry.expires)

    def entries_of(self, resource: CloudResource) -> list[LedgerEntry]:
        """Return a resource's entries: by id, or by token if its id was never recorded.

        Several runs may have been given access to one snapshot; it is over when all have ended.
        """
        folded = resource.id.casefold()
        found = [entry for entry in self.entries if entry.resource_id.casefold() == folded]
        if found:
            return found
        token = resource.tags.get(TAG_TOKEN, "")
        return [entry for entry in self.entries if not entry.resource_id and entry.token == token]

    def _ended(self, run: str, expires: str) -> bool:
        if run in self.live_runs:
            return False
        if self.run:
            return run == self.run
        moment = _time(expires)
        return moment is not None and moment < self.now


def _delete(
    cloud: Cloud, state: StateStore, view: _View, doomed: list[CloudResource]
) -> tuple[list[CloudResource], list[tuple[CloudResource, ImageportError]]]:
    deleted: list[CloudResource] = []
    failed: list[tuple[CloudResource, ImageportError]] = []
    for resource in doomed:
        try:
            note = cloud.delete_resource(resource)
        except (CloudError, StateError) as error:
            failed.append((resource, error))
            continue
        deleted.append(replace(resource, note=note))
        for entry in view.entries_of(resource):
            state.ledger.mark(entry.id, "deleted")
    return deleted, failed


def _close_entries(state: StateStore, view: _View, listed: list[CloudResource]) -> None:
    """Close what the ledger need not watch: handed to the catalogue, or never made."""
    watched = {entry.id for resource in listed for entry in view.entries_of(resource)}
    for entry in view.entries:
        if view.keeps(entry.resource_id):
            state.ledger.mark(entry.id, "released")
        elif entry.id not in watched and view.ended(entry):
            state.ledger.mark(entry.id, "deleted")


def _time(text: str) -> datetime | None:
    """Read a tag; one that is missing or no time protects its resource from being judged."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
