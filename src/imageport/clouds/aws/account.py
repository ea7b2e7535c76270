"""One run in one account: clients, tags, and the ledger that knows of everything it creates."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from imageport.clouds.aws.clients import AwsClients
from imageport.clouds.aws.error_mapping import asked
from imageport.clouds.aws.settings import AwsSettings
from imageport.clouds.intents import Intent, Intents
from imageport.clouds.tags import TAG_EXPIRES
from imageport.errors import CloudError
from imageport.state.ledger import Ledger
from imageport.state.records import LedgerEntry

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import TagSpecificationTypeDef


class Account(Intents):
    """What every part of the AWS cloud works with; may be used from several threads."""

    def __init__(
        self, settings: AwsSettings, clients: AwsClients, ledger: Ledger, run: str
    ) -> None:
        scope = f"aws/{settings.region}"
        super().__init__(ledger, scope, settings.site, run, settings.expires_seconds)
        self.settings = settings
        self.clients = clients

    def tag_expiry(self, entry: LedgerEntry, expires: str) -> None:
        """Renew one tag: one resource a call, because AWS refuses the whole call for one gone."""
        tag: Any = {"Key": TAG_EXPIRES, "Value": expires}
        if entry.kind != "object":
            with contextlib.suppress(CloudError), asked("ec2:CreateTags", entry.resource_id):
                self.clients.ec2.create_tags(Resources=[entry.resource_id], Tags=[tag])


def tag_list(intent: Intent) -> list[Any]:
    """Return the tags as AWS writes them."""
    return [{"Key": key, "Value": value} for key, value in sorted(intent.tags.items())]


def specifications(intent: Intent, *resource_types: str) -> list[TagSpecificationTypeDef]:
    """Return the tags for a call that creates ``resource_types``."""
    kinds: Any = resource_types
    return [{"ResourceType": kind, "Tags": tag_list(intent)} for kind in kinds]
