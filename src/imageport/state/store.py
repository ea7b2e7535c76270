"""The state store: everything that outlives a run, in one folder that both sites can reach."""

from __future__ import annotations

from imageport.state.catalogue import Catalogue
from imageport.state.journals import Journals
from imageport.state.leases import Lease, Leases
from imageport.state.ledger import Ledger
from imageport.state.manifests import Manifests
from imageport.storage.folder import Folder


class StateStore:
    """Catalogue, ledger, leases, journals and manifests over a local, SMB or memory folder.

    Opening it writes nothing. May be used from several threads, processes and sites at once.
    """

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.catalogue = Catalogue(folder)
        self.ledger = Ledger(folder)
        self.journals = Journals(folder)
        self.manifests = Manifests(folder)
        self.leases = Leases(folder)

    @property
    def location(self) -> str:
        """Return where it lies, without secrets."""
        return self.folder.location

    def lease(self, name: str, owner: str, ttl_seconds: float = 60.0) -> Lease:
        """Return a lease to enter: `LeaseHeld` if another owner holds it."""
        return self.leases.lease(name, owner, ttl_seconds)
