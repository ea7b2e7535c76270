# References: Azure Virtual Network, "Network security groups", "Service tags" (platform tags).
"""Network security groups for one run: nothing comes in, and from the booted image nothing out."""

from __future__ import annotations

from typing import Any, Final

from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.arm_http import NETWORK_API
from imageport.clouds.azure.names import (
    NETWORK_SECURITY_GROUPS,
    resource_id,
    resource_name,
)
from imageport.clouds.azure.settings import AzureSettings
from imageport.clouds.azure.waiting import retried, wait_for
from imageport.clouds.intents import Intent
from imageport.errors import CloudRefused, ResourceGone

RELEASE_SECONDS: Final = 300.0
"""A network interface whose machine could not be made is kept for it for 180 s."""
PLATFORM_TAGS: Final = ("AzurePlatformDNS", "AzurePlatformIMDS", "AzurePlatformLKM")
"""Name service, metadata and licensing of the host: no other rule reaches these addresses."""
LAST_PRIORITY: Final = 4096
FIRST_PRIORITY: Final = 100


class GroupOfRun:
    """The group of a run's machines for a purpose: the operator's own, or made and removed."""

    def __init__(self, account: AzureAccount, role: str, given: str) -> None:
        self._account = account
        self._intent: Intent | None = None
        self.id = given
        """What machines join; it exists once `make` returned."""
        if not given:
            self._intent = account.intend("security-group", role, account.run)
            name = resource_name(self._intent)
            self.id = resource_id(account.settings, NETWORK_SECURITY_GROUPS, name)

    def make(self, rules: list[dict[str, Any]]) -> None:
        """Make the group with these rules before those that deny the rest; again is harmless.

        A group of the operator's is left as it is.
        """
        if self._intent is None:
            return
        account, intent = self._account, self._intent
        closed = [
            _rule(f"nothing-{direction.lower()}", LAST_PRIORITY, direction, "Deny")
            for direction in ("Inbound", "Outbound")
        ]
        body = {
            "location": account.settings.location,
            "tags": intent.tags,
            "properties": {"securityRules": rules + closed},
        }
        action = "Microsoft.Network/networkSecurityGroups/write"
        # The same name and rules again are the same group: a killed call's is taken up like this.
        retried(
            lambda: account.clients.arm.put(self.id, body, NETWORK_API, action, pulse=account.live)
        )
        account.record(intent, self.id)

    def remove(self) -> None:
        """Delete the group if it was made for the run, or half made."""
        if self._intent is not None:
            delete_group(self._account, self.id)
            self._account.void(self._intent)


def engine_group(account: AzureAccount) -> GroupOfRun:
    """Return the group of the engine machine."""
    return GroupOfRun(account, "engine", account.settings.engine_network_security_group_id)


def isolated_group(account: AzureAccount) -> GroupOfRun:
    """Return the group of the one boot."""
    return GroupOfRun(account, "isolated", account.settings.isolated_network_security_group_id)


def engine_rules(*, installs: bool) -> list[dict[str, Any]]:
    """Return the engine machine's way out: by HTTPS, to fetch and deliver its job.

    ``installs`` opens HTTP too: Debian's package mirrors, whose packages are signed, speak that.
    """
    ports = ["443", "80"] if installs else ["443"]
    narrowed = {"protocol": "Tcp", "destinationPortRanges": ports}
    return [_rule("out-web", FIRST_PRIORITY, "Outbound", "Allow", **narrowed)]


def isolated_rules(settings: AzureSettings) -> list[dict[str, Any]]:
    """Return the one boot's way out: only to what the settings name.

    The platform's own addresses are denied first: no named destination opens them.
    """
    rules = [
        _rule(
            f"no-{tag}", FIRST_PRIORITY + number, "Outbound", "Deny", destinationAddressPrefix=tag
        )
        for number, tag in enumerate(PLATFORM_TAGS)
    ]
    if settings.boot_egress_cidrs:
        narrowed = {"destinationAddressPrefixes": list(settings.boot_egress_cidrs)}
        rules.append(_rule("out-named", 2 * FIRST_PRIORITY, "Outbound", "Allow", **narrowed))
    return rules


def delete_group(account: AzureAccount, group_id: str) -> None:
    """Delete a group, waiting for the interface in it to go; a gone one is no error."""
    _delete(account, group_id, "Microsoft.Network/networkSecurityGroups/delete")


def delete_interface(account: AzureAccount, interface_id: str) -> None:
    """Delete a network interface that its machine left behind."""
    _delete(account, interface_id, "Microsoft.Network/networkInterfaces/delete")


def _delete(account: AzureAccount, resource: str, action: str) -> None:
    def check() -> bool | None:
        try:
            account.clients.arm.delete(resource, NETWORK_API, action, pulse=account.live)
        except ResourceGone:
            return True
        except CloudRefused as error:
            code = str(error.fields.get("azure_code", ""))
            if not code.startswith(("InUse", "NicInUse", "NicReserved")):
                raise
            return None
        return True

    wait_for(resource, check, RELEASE_SECONDS, pulse=account.live)
    account.mark(resource, "deleted")


def _rule(name: str, priority: int, direction: str, access: str, **where: Any) -> dict[str, Any]:
    """Return a rule for everything, narrowed by what ``where`` names."""
    everything: dict[str, Any] = {
        "protocol": "*",
        "sourceAddressPrefix": "*",
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRange": "*",
    }
    if "destinationAddressPrefixes" in where:
        del everything["destinationAddressPrefix"]
    if "destinationPortRanges" in where:
        del everything["destinationPortRange"]
    fixed = {"priority": priority, "direction": direction, "access": access}
    return {"name": name, "properties": fixed | everything | where}
