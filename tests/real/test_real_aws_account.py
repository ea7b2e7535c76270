"""Identities, the bucket and prices of a real account. Costs nothing to speak of."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import boto3
from botocore.exceptions import ClientError

from imageport.clouds.aws import prices
from imageport.clouds.aws.permissions import NOWHERE
from imageport.model import GIB
from tests.clouds.cloud_contract import BLOCKS, uploaded
from tests.clouds.iam_documents import policy
from tests.real.conftest import Observed
from tests.real.probes import probes
from tests.real.real_aws import RealAws

ALL = {"Effect": "Allow", "Action": "*", "Resource": "*"}
DENIED = ("ec2:DeleteVolume", "ec2:StartInstances", "ec2:RegisterImage", "ebs:PutSnapshotBlock")


@probes("aws-dry-run-denial")
def test_a_denied_action_is_named_although_its_id_does_not_exist(aws: RealAws, observed: Observed):
    missed = []
    for action in DENIED:
        deny = {"Effect": "Deny", "Action": action, "Resource": "*"}
        session = aws.restricted({"Version": "2012-10-17", "Statement": [ALL, deny]})
        gaps = {gap.action for gap in aws.cloud(session).check_permissions()}
        missed += [action] if action not in gaps else []
    observed(f"denied {', '.join(DENIED)}; not noticed: {', '.join(missed) or 'none'}")
    assert missed == []


@probes("aws-policy")
def test_the_policy_of_the_docs_is_enough(aws: RealAws, observed: Observed):
    values = {
        "REGION": aws.named["region"],
        "ACCOUNT_ID": aws.account_id(),
        "SITE": aws.site,
        "BUCKET": aws.named["bucket"],
        "SUBNET_ID": aws.named["subnet"],
    }
    with aws.role_with(policy("aws-policy", values)) as session:
        cloud = aws.cloud(session)
        gaps = [gap.action for gap in cloud.check_permissions()]
        place = [str(problem) for problem in cloud.check_place("probe", GIB)]
        reference = uploaded(cloud, BLOCKS)
        disk = cloud.make_disk(reference, "")
        outcome = cloud.boot_once(disk, deadline_seconds=60)
        prepared = cloud.snapshot(disk, "probe")
        for resource in cloud.list_ours(aws.site):
            cloud.delete_resource(resource)
    observed(
        f"gaps on ids of {NOWHERE}: {gaps or 'none'}; place: {place or 'fits'}; "
        f"boot: {outcome.reason}; then {prepared}"
    )
    assert gaps == []


@probes("aws-missing-key")
def test_a_missing_key_is_not_found_although_listing_is_bound_to_a_prefix(
    aws: RealAws, observed: Observed
):
    bucket = aws.named["bucket"]
    outcomes = {}
    for operator in ("StringLike", "StringLikeIfExists"):
        listing = {
            "Effect": "Allow", "Action": "s3:ListBucket", "Resource": f"arn:aws:s3:::{bucket}",
            "Condition": {operator: {"s3:prefix": "imageport/*"}},
        }  # fmt: skip
        get = {
            "Effect": "Allow", "Action": "s3:GetObject",
            "Resource": f"arn:aws:s3:::{bucket}/imageport/*",
        }  # fmt: skip
        session = aws.restricted({"Version": "2012-10-17", "Statement": [listing, get]})
        with contextlib.closing(session.client("s3")) as s3:
            try:
                s3.get_object(Bucket=bucket, Key=f"imageport/{aws.site}/nothing")
            except ClientError as error:
                outcomes[operator] = error.response["Error"]["Code"]
    observed(str(outcomes))
    assert outcomes["StringLikeIfExists"] == "NoSuchKey"


@probes("aws-list-prices")
def test_the_price_table_is_the_price_list(aws: RealAws, observed: Observed):
    session: boto3.Session = aws.session
    found: dict[str, float] = {}
    with contextlib.closing(session.client("pricing", region_name="us-east-1")) as pricing:
        for name, service, filters in (
            ("machine hour", "AmazonEC2", {
                "instanceType": "m6i.large", "operatingSystem": "Linux", "tenancy": "Shared",
                "capacitystatus": "Used", "preInstalledSw": "NA",
            }),
            ("gp3 GiB month", "AmazonEC2", {"volumeApiName": "gp3", "productFamily": "Storage"}),
            ("snapshot GiB month", "AmazonEC2", {"usagetype": "EBS:SnapshotUsage"}),
        ):  # fmt: skip
            asked: Any = [
                {"Type": "TERM_MATCH", "Field": field, "Value": value}
                for field, value in {"regionCode": "us-east-1", **filters}.items()
            ]
            listed = pricing.get_products(ServiceCode=service, Filters=asked)["PriceList"]
            found[name] = max(_price(json.loads(str(item))) for item in listed)
    observed(f"{found}, table of {prices.PRICES_AS_OF}")
    assert found == {
        "machine hour": round(prices.USD_PER_MACHINE_MINUTE * 60, 4),
        "gp3 GiB month": prices.USD_PER_GP3_GIB_MONTH,
        "snapshot GiB month": prices.USD_PER_SNAPSHOT_GIB_MONTH,
    }


def _price(product: dict[str, Any]) -> float:
    terms = product["terms"].get("OnDemand", {}).values()
    return max(
        (
            float(dimension["pricePerUnit"]["USD"])
            for term in terms
            for dimension in term["priceDimensions"].values()
        ),
        default=0.0,
    )
