"""A real AWS account for probes: settings from the environment, a site of its own, and an end."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
import pytest

from imageport.clouds.aws.account import Account
from imageport.clouds.aws.clients import AwsClients
from imageport.clouds.aws.cloud import AwsCloud
from imageport.clouds.aws.instances import LaunchPlan, console_text, launch
from imageport.clouds.aws.settings import AwsSettings
from imageport.state.store import StateStore
from imageport.storage.memory import MemoryFolder
from tests.real.removal import remove_all

CONSOLE_SECONDS = 900.0
"""EC2 shows console text minutes late on some types."""
IAM_SECONDS = 30.0
"""IAM is eventually consistent; a policy of a role counts everywhere after some seconds."""
PROBE_POLICY = "imageport-probe"


class RealAws:
    """One account; everything made carries the probe's own site and is deleted at the end."""

    def __init__(self, named: Mapping[str, str], site: str) -> None:
        self.named = named
        self.site = site
        self.session = boto3.Session(region_name=named["region"])
        self.state = StateStore(MemoryFolder())
        self._open: list[AwsCloud] = []
        self.clients = AwsClients(self.session, self.settings())

    def settings(self, **changes: Any) -> AwsSettings:
        known: dict[str, Any] = {
            "region": self.named["region"],
            "subnet_id": self.named["subnet"],
            "bucket": self.named["bucket"],
            "site": self.site,
            "engine_instance_type": self.named.get("instance_type", "m6i.large"),
            "boot_instance_type": self.named.get("instance_type", "m6i.large"),
            "engine_image_id": self.named.get("engine_image", ""),
            "endpoint_url": self.named.get("endpoint_url", ""),
        }
        return AwsSettings(**(known | changes))

    def needs(self, name: str) -> str:
        """Return an optional variable, or skip with the reason."""
        if name not in self.named:
            pytest.skip(f"needs IMAGEPORT_REAL_AWS_{name.upper()} (tests/real/README.md)")
        return self.named[name]

    def cloud(self, session: boto3.Session | None = None, **changes: Any) -> AwsCloud:
        made = AwsCloud(
            self.settings(**changes), session or self.session, self.state.ledger, "probe"
        )
        self._open.append(made)
        return made

    def account(self, **changes: Any) -> Account:
        return Account(self.settings(**changes), self.clients, self.state.ledger, "probe")

    def restricted(self, policy: Mapping[str, Any]) -> boto3.Session:
        """Return a session of the role of the environment that can do no more than ``policy``.

        STS takes a policy for a session of at most 2048 characters; `role_with` takes longer ones.
        """
        return self._session(self.needs("role_arn"), Policy=_compact(policy))

    @contextlib.contextmanager
    def role_with(self, policy: Mapping[str, Any]) -> Iterator[boto3.Session]:
        """Give the role that has no policy of its own this one, for a while."""
        arn = self.needs("policy_role_arn")
        name = arn.rsplit("/", 1)[-1]
        iam: Any = self.session.client("iam")
        with contextlib.closing(iam):
            iam.put_role_policy(
                RoleName=name, PolicyName=PROBE_POLICY, PolicyDocument=_compact(policy)
            )
            try:
                time.sleep(IAM_SECONDS)
                yield self._session(arn, DurationSeconds=3600)
            finally:
                iam.delete_role_policy(RoleName=name, PolicyName=PROBE_POLICY)

    def _session(self, role_arn: str, **options: Any) -> boto3.Session:
        answer = self.clients.sts.assume_role(
            RoleArn=role_arn, RoleSessionName="imageport-probe", **options
        )
        found = answer["Credentials"]
        return boto3.Session(
            found["AccessKeyId"],
            found["SecretAccessKey"],
            found["SessionToken"],
            region_name=self.named["region"],
        )

    def account_id(self) -> str:
        return str(self.clients.sts.get_caller_identity()["Account"])

    @contextlib.contextmanager
    def machine(self, script: str, group_id: str, image_id: str) -> Iterator[str]:
        """Launch a machine that runs a script at its first boot, and terminate it."""
        account = self.account()
        intent = account.intend("instance", "probe", self.site)
        plan = LaunchPlan(
            image_id, account.settings.engine_instance_type, group_id, "terminate", script
        )
        instance_id = launch(account, intent, plan)
        try:
            yield instance_id
        finally:
            self.clients.ec2.terminate_instances(InstanceIds=[instance_id])

    def console_line(self, instance_id: str, mark: str) -> str:
        """Wait for the console line that has the mark in it; "" when none came."""
        end = time.monotonic() + CONSOLE_SECONDS
        while time.monotonic() < end:
            text = console_text(self.account(), instance_id)
            lines = [line for line in text.splitlines() if mark in line]
            if lines:
                return lines[-1].strip()
            time.sleep(1 if self.named.get("endpoint_url") else 15)
        return ""

    def remove_everything(self) -> None:
        """Delete what carries this probe's site, whatever the probe itself left."""
        try:
            remove_all(self.cloud(), self.site)
        finally:
            for each in self._open:
                each.close()
            self.clients.close()


def _compact(policy: Mapping[str, Any]) -> str:
    return json.dumps(policy, separators=(",", ":"))
