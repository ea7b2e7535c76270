"""Security groups for one run: nothing comes in, and from the booted image nothing goes out."""

from __future__ import annotations

from typing import Any

from imageport.clouds.aws.account import Account, specifications
from imageport.clouds.aws.error_mapping import asked, done_already
from imageport.clouds.waiting import wait_for
from imageport.errors import CloudRefused, ResourceGone

LISTED_SECONDS = 60.0
"""EC2 is eventually consistent: a new group shows in a list a little later."""
RELEASE_SECONDS = 180.0
"""A terminated machine's network interface holds the group for a while."""


def engine_group(account: Account) -> str:
    """Return the engine machine's group: no way in; out, because it fetches job and packages."""
    return account.settings.engine_security_group_id or _own_group(account, "engine")


def isolated_group(account: Account) -> str:
    """Return the group of the one boot: no way in, and out only to what the settings name."""
    given = account.settings.isolated_security_group_id
    if given:
        return given
    group_id = _own_group(account, "isolated")
    _replace_egress(account, group_id)
    return group_id


def is_own(account: Account, group_id: str) -> bool:
    """Tell whether the group was made for this run and goes with it."""
    settings = account.settings
    return group_id not in {settings.engine_security_group_id, settings.isolated_security_group_id}


def delete_group(account: Account, group_id: str) -> None:
    """Delete a group, waiting for the machine in it to let go; a gone one is no error."""

    def check() -> bool | None:
        try:
            with asked("ec2:DeleteSecurityGroup", group_id):
                account.clients.ec2.delete_security_group(GroupId=group_id)
        except ResourceGone:
            return True
        except CloudRefused as error:
            if error.fields.get("aws_code") not in {"DependencyViolation", "InvalidGroup.InUse"}:
                raise
            return None
        return True

    wait_for(group_id, check, RELEASE_SECONDS)
    account.mark(group_id, "deleted")


def _own_group(account: Account, role: str) -> str:
    account.settings.require("subnet_id")
    intent = account.intend("security-group", role, account.run)
    name = f"imageport-{role}-{intent.client_token[:16]}"
    vpc_id = str(describe_subnet(account, account.settings.subnet_id)["VpcId"])
    found = _find_group(account, vpc_id, name)
    if not found:
        with done_already("InvalidGroup.Duplicate"), asked("ec2:CreateSecurityGroup", name):
            account.clients.ec2.create_security_group(
                GroupName=name,
                Description="imageport: machines of one run, nothing comes in",
                VpcId=vpc_id,
                TagSpecifications=specifications(intent, "security-group"),
            )
        found = wait_for(name, lambda: _find_group(account, vpc_id, name) or None, LISTED_SECONDS)
    account.record(intent, found)
    return found


def _find_group(account: Account, vpc_id: str, name: str) -> str:
    with asked("ec2:DescribeSecurityGroups", name):
        answer = account.clients.ec2.describe_security_groups(
            Filters=[
                {"Name": "vpc-id", "Values": [vpc_id]},
                {"Name": "group-name", "Values": [name]},
            ]
        )
    groups = answer["SecurityGroups"]
    return groups[0]["GroupId"] if groups else ""


def zone_of(account: Account, subnet_id: str) -> str:
    """Return the zone of a subnet: machines in it take volumes of that zone only."""
    return str(describe_subnet(account, subnet_id)["AvailabilityZone"])


def describe_subnet(account: Account, subnet_id: str) -> dict[str, Any]:
    """Return what EC2 tells about a subnet."""
    with asked("ec2:DescribeSubnets", subnet_id):
        answer = account.clients.ec2.describe_subnets(SubnetIds=[subnet_id])
    return dict(answer["Subnets"][0])


def _replace_egress(account: Account, group_id: str) -> None:
    """Leave exactly the named destinations: AWS gives every new group a way out to everywhere."""
    with asked("ec2:DescribeSecurityGroups", group_id):
        answer = account.clients.ec2.describe_security_groups(GroupIds=[group_id])
    group: dict[str, Any] = dict(answer["SecurityGroups"][0])
    wanted = set(account.settings.boot_egress_cidrs)
    for rule in group.get("IpPermissionsEgress", []):
        cidrs = {item["CidrIp"] for item in rule.get("IpRanges", [])}
        if cidrs and cidrs <= wanted and not rule.get("Ipv6Ranges"):
            wanted -= cidrs
            continue
        revoke = asked("ec2:RevokeSecurityGroupEgress", group_id)
        with done_already("InvalidPermission.NotFound"), revoke:
            account.clients.ec2.revoke_security_group_egress(
                GroupId=group_id, IpPermissions=[_plain_rule(rule)]
            )
    for cidr in sorted(wanted):
        rule = {"IpProtocol": "-1", "IpRanges": [{"CidrIp": cidr}]}
        authorize = asked("ec2:AuthorizeSecurityGroupEgress", group_id)
        with done_already("InvalidPermission.Duplicate"), authorize:
            account.clients.ec2.authorize_security_group_egress(
                GroupId=group_id,
                IpPermissions=[rule],  # type: ignore[list-item]
            )


def _plain_rule(rule: dict[str, Any]) -> Any:
    """Return the rule without the empty lists that AWS refuses to take back."""
    return {name: value for name, value in rule.items() if value not in ([], None, "")}
