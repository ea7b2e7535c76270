"""Short-lived machines: launched once per token, watched, stopped, terminated."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imageport.cloud import Cancelled, never
from imageport.clouds.aws.account import Account, specifications
from imageport.clouds.aws.error_mapping import asked
from imageport.clouds.intents import Intent
from imageport.clouds.tags import TAG_TOKEN
from imageport.clouds.waiting import wait_for
from imageport.errors import CloudRefused, ResourceGone

STATE_SECONDS = 900.0
"""How long AWS may take for a change of state; forced stops have been seen to take minutes."""
ENDING = {"shutting-down", "terminated"}


@dataclass(frozen=True, slots=True)
class LaunchPlan:
    """What kind of machine; every one has IMDSv2 only, no role, no public address."""

    image_id: str
    instance_type: str
    security_group_id: str
    shutdown_behavior: str
    """``terminate`` or ``stop``: what a shutdown from inside means."""
    user_data: str = field(default="", repr=False)
    """Holds a signed URL."""
    metadata: bool = True
    """Whether the machine can ask for its own metadata (by IMDSv2)."""
    block_devices: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class InstanceFacts:
    """What EC2 tells about a machine."""

    id: str
    state: str
    state_reason: str
    """``Client.InstanceInitiatedShutdown: …`` when the guest shut down by itself."""
    root_volume_id: str
    volumes: tuple[str, ...]
    tags: dict[str, str] = field(default_factory=dict)


def describe_instance(account: Account, instance_id: str) -> InstanceFacts | None:
    """Return the machine's facts, or None when EC2 knows no such machine (any more)."""
    try:
        with asked("ec2:DescribeInstances", instance_id):
            answer = account.clients.ec2.describe_instances(InstanceIds=[instance_id])
    except ResourceGone:
        return None
    for reservation in answer["Reservations"]:
        for item in reservation["Instances"]:
            return _facts(dict(item))
    return None


def find_instance(account: Account, token: str) -> str:
    """Return the id of our live machine with this token, or ""."""
    states = ["pending", "running", "stopping", "stopped"]
    with asked("ec2:DescribeInstances", token):
        answer = account.clients.ec2.describe_instances(
            Filters=[
                {"Name": f"tag:{TAG_TOKEN}", "Values": [token]},
                {"Name": "instance-state-name", "Values": states},
            ]
        )
    found = [item for entry in answer["Reservations"] for item in entry["Instances"]]
    return found[0]["InstanceId"] if found else ""


def existing_instance(account: Account, intent: Intent) -> str:
    """Return the live machine that an earlier, killed call launched for this intent, or ""."""
    known = intent.entry.resource_id
    if known:
        facts = describe_instance(account, known)
        return known if facts is not None and facts.state not in ENDING else ""
    return find_instance(account, intent.token)


def launch(account: Account, intent: Intent, plan: LaunchPlan) -> str:
    """Launch one machine and record it; the caller has looked for an existing one."""
    chosen: dict[str, Any] = {"UserData": plan.user_data} if plan.user_data else {}
    if plan.block_devices:
        chosen["BlockDeviceMappings"] = list(plan.block_devices)
    shutdown: Any = plan.shutdown_behavior
    kind: Any = plan.instance_type
    try:
        with asked("ec2:RunInstances", plan.image_id):
            answer = account.clients.ec2.run_instances(
                ImageId=plan.image_id,
                InstanceType=kind,
                MinCount=1,
                MaxCount=1,
                ClientToken=intent.client_token,
                InstanceInitiatedShutdownBehavior=shutdown,
                MetadataOptions={
                    "HttpTokens": "required",
                    "HttpEndpoint": "enabled" if plan.metadata else "disabled",
                },
                NetworkInterfaces=[
                    {
                        "DeviceIndex": 0,
                        "SubnetId": account.settings.subnet_id,
                        "Groups": [plan.security_group_id],
                        "AssociatePublicIpAddress": False,
                        "DeleteOnTermination": True,
                    }
                ],
                TagSpecifications=specifications(intent, "instance", "volume"),
                **chosen,
            )
        instance_id = answer["Instances"][0]["InstanceId"]
    except CloudRefused as error:
        # An earlier call with this token got through, but its machine is not listed yet.
        if error.fields.get("aws_code") != "IdempotentParameterMismatch":
            raise
        instance_id = wait_for(
            intent.token, lambda: find_instance(account, intent.token) or None, 60.0
        )
    account.record(intent, instance_id)
    return instance_id


def wait_state(
    account: Account,
    instance_id: str,
    wanted: str,
    *,
    deadline_seconds: float = STATE_SECONDS,
    cancelled: Cancelled = never,
) -> InstanceFacts:
    """Wait until the machine is in a state; `ResourceGone` when it ended instead."""

    def check() -> InstanceFacts | None:
        facts = describe_instance(account, instance_id)
        # A machine just launched may be unknown for seconds (EC2 is eventually consistent).
        if facts is None or facts.state == wanted:
            return facts
        if facts.state in ENDING:
            raise ResourceGone(
                f"Bad instance '{instance_id}': found state {facts.state} "
                f"({facts.state_reason}), needed {wanted}."
            )
        return None

    return wait_for(instance_id, check, deadline_seconds, cancelled=cancelled, pulse=account.live)


def stop(account: Account, instance_id: str, *, force: bool) -> None:
    """Stop a machine and wait; a stopped one is no error."""
    with asked("ec2:StopInstances", instance_id):
        account.clients.ec2.stop_instances(InstanceIds=[instance_id], Force=force)
    wait_state(account, instance_id, "stopped")


def terminate(account: Account, instance_id: str) -> None:
    """Terminate a machine and wait until it has let go of its volumes; gone is no error."""
    try:
        with asked("ec2:TerminateInstances", instance_id):
            account.clients.ec2.terminate_instances(InstanceIds=[instance_id])
    except ResourceGone:
        account.mark(instance_id, "deleted")
        return

    def check() -> bool | None:
        facts = describe_instance(account, instance_id)
        return True if facts is None or facts.state == "terminated" else None

    wait_for(instance_id, check, STATE_SECONDS, pulse=account.live)
    account.mark(instance_id, "deleted")


def console_text(account: Account, instance_id: str) -> str:
    """Return what the machine wrote to its serial console; "" when AWS has none."""
    with asked("ec2:GetConsoleOutput", instance_id):
        answer = account.clients.ec2.get_console_output(InstanceId=instance_id, Latest=True)
    return str(answer.get("Output", "") or "")


def _facts(item: dict[str, Any]) -> InstanceFacts:
    reason = item.get("StateReason") or {}
    root = item.get("RootDeviceName", "")
    volumes = {
        mapping["DeviceName"]: mapping["Ebs"]["VolumeId"]
        for mapping in item.get("BlockDeviceMappings", [])
        if "Ebs" in mapping
    }
    code, message = str(reason.get("Code", "")), str(reason.get("Message", ""))
    return InstanceFacts(
        id=item["InstanceId"],
        state=item["State"]["Name"],
        state_reason=message if message.startswith(code) else f"{code}: {message}",
        root_volume_id=volumes.get(root, ""),
        volumes=tuple(volumes.values()),
        tags={tag["Key"]: tag["Value"] for tag in item.get("Tags", [])},
    )
