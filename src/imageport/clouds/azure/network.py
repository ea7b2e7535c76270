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
    same_id,
)
from imageport.clouds.azure.waiting import wait_for
from imageport.errors import CloudRefused, ResourceGone

RELEASE_SECONDS: Final = 300.0
"""A network interface whose machine could not be made is kept for it for 180 s."""
PLATFORM_TAGS: Final = ("AzurePlatformDNS", "AzurePlatformIMDS", "AzurePlatformLKM")
"""Name service, metadata and licensing of the host: no other rule reaches these addresses."""
LAST_PRIORITY: Final = 4096
FIRST_PRIORITY: Final = 100


def engine_group(account: AzureAccount, *, installs: bool) -> str:
    """Return the engine machine's group: no way in; out by HTTPS, to fetch and deliver its job.

    ``installs`` opens HTTP too: Debian's package mirrors, whose packages are signed, speak that.
    """
    given = account.settings.engine_network_security_group_id
    if given:
        return given
    ports = ["443", "80"] if installs else ["443"]
    narrowed = {"protocol": "Tcp", "destinationPortRanges": ports}
    way_out = _rule("out-web", FIRST_PRIORITY, "Outbound", "Allow", **narrowed)
    return _own_group(account, "engine", [way_out])


def isolated_group(account: AzureAccount) -> str:
    """Return the group of the one boot: no way in, and out only to what the settings name.

    The platform's own addresses are denied first: no named destination opens them.
    """
    given = account.settings.isolated_network_security_group_id
    if given:
        return given
    rules = [
        _rule(
            f"no-{tag}", FIRST_PRIORITY + number, "Outbound", "Deny", destinationAddressPrefix=tag
        )
        for number, tag in enumerate(PLATFORM_TAGS)
    ]
    if account.settings.boot_egress_cidrs:
        named = list(account.settings.boot_egress_cidrs)
        narrowed = {"destinationAddressPrefixes": named}
        rules.append(_rule("out-named", 2 * FIRST_PRIORITY, "Outbound", "Allow", **narrowed))
    return _own_group(account, "isolated", rules)


def is_own(account: AzureAccount, group_id: str) -> bool:
    """Tell whether the group was made for this run and goes with it."""
    settings = account.settings
    given = (
        settings.engine_network_security_group_id,
        settings.isolated_network_security_group_id,
    )
    return not any(same_id(group_id, item) for item in given)


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


def _own_group(account: AzureAccount, role: str, rules: list[dict[str, Any]]) -> str:
    intent = account.intend("security-group", role, account.run)
    group_id = resource_id(account.settings, NETWORK_SECURITY_GROUPS, resource_name(intent))
    closed = [
        _rule(f"nothing-{direction.lower()}", LAST_PRIORITY, direction, "Deny")
        for direction in ("Inbound", "Outbound")
    ]
    body = {
        "location": account.settings.location,
        "tags": intent.tags,
        "properties": {"securityRules": rules + closed},
    }
    # The same name and rules again are the same group, so a killed call's is taken up like this.
    account.clients.arm.put(
        group_id,
        body,
        NETWORK_API,
        "Microsoft.Network/networkSecurityGroups/write",
        pulse=account.live,
    )
    account.record(intent, group_id)
    return group_id


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
