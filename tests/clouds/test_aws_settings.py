from __future__ import annotations

from typing import Any

import pytest

from imageport.clouds.aws.settings import AwsSettings
from imageport.errors import InputError


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"region": ""}, "region is missing"),
        ({"encrypted": True, "unencrypted_for_ever": True}, "exclude each other"),
        ({"kms_key_id": "key"}, "kms_key_id needs encrypted"),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], problem: str):
    with pytest.raises(InputError, match=problem):
        AwsSettings(**({"region": "eu-central-1"} | changes))


def test_everything_wrong_is_told_at_once():
    with pytest.raises(InputError) as caught:
        AwsSettings(region="", kms_key_id="key")
    assert len(caught.value.fields["problems"]) == 2
    with pytest.raises(InputError) as caught:
        AwsSettings(region="eu-central-1").require("bucket", "subnet_id", "region")
    assert caught.value.fields["problems"] == ["bucket is missing", "subnet_id is missing"]
