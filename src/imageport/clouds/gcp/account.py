"""One run in one project: clients, labels, and the ledger that knows of all that is created."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import TYPE_CHECKING

from imageport.clouds.gcp.names import ResourceId, parse_id
from imageport.clouds.gcp.settings import GcpSettings
from imageport.clouds.intents import Intents
from imageport.errors import CloudError, CloudRefused
from imageport.state.ledger import Ledger
from imageport.state.records import LedgerEntry

if TYPE_CHECKING:
    from imageport.clouds.gcp.clients import GcpClients


class GcpAccount(Intents):
    """What every part of the Google cloud works with; may be used from several threads."""

    def __init__(
        self, settings: GcpSettings, clients: GcpClients, ledger: Ledger, run: str
    ) -> None:
        super().__init__(ledger, settings.scope, settings.site, run, settings.expires_seconds)
        self.settings = settings
        self.clients = clients

    def own(self, text: str, type_: str) -> ResourceId:
        """Take the id of one of this project's resources apart.

        Raises:
            ResourceGone: it is no id of this type.
            CloudRefused: it lies in another project. Asked in ours it would look as if it were
                gone, and the catalogue would forget an image that is there and costs money.
        """
        found, needed = parse_id(text, type_), self.settings.project
        if found.project != needed:
            raise CloudRefused(
                f"Cannot use '{found.name}': it lies in project {found.project}, the target block "
                f"names {needed}.",
                hint="Keep a block with the old project for this target site, or give the target "
                "site in the new project a name of its own.",
            )
        return found

    def tag_expiry(self, entry: LedgerEntry, expires: str) -> None:
        """Renew the expiry where it stands; a resource that is gone is left."""
        # Not at the top: those modules work with this class.
        from imageport.clouds.gcp.expiry import write_expiry  # noqa: PLC0415

        with contextlib.suppress(CloudError):
            write_expiry(self, entry.resource_id, datetime.fromisoformat(expires))
