"""The AWS cloud keeps the contract, against an emulator as strict as AWS's documentation."""

from __future__ import annotations

import pytest

from tests.clouds.aws_laboratory import AwsLab
from tests.clouds.cloud_contract import CloudContract, CloudLab
from tests.clouds.fault_contract import CloudFaultContract


class TestAwsCloud(CloudContract):
    @pytest.fixture
    def lab(self, aws_lab: AwsLab) -> CloudLab:
        return aws_lab


class TestAwsCloudInTrouble(CloudFaultContract):
    @pytest.fixture
    def lab(self, aws_lab: AwsLab) -> CloudLab:
        return aws_lab
