"""Real accounts, named by the environment; see README.md. Without one, every probe is skipped."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.real.real_aws import RealAws
from tests.real.real_azure import RealAzure
from tests.real.real_gcp import RealGcp

Observed = Callable[[str], None]


def _named(prefix: str, needed: tuple[str, ...]) -> dict[str, str]:
    """Return what the environment says about an account, or skip with the reason."""
    found = {
        name.removeprefix(prefix).lower(): value
        for name, value in os.environ.items()
        if name.startswith(prefix) and value
    }
    missing = [prefix + name.upper() for name in needed if name not in found]
    if missing:
        others = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        pytest.skip(f"no account named: {missing[0]}{others} (tests/real/README.md)")
    return found


@pytest.fixture
def site() -> str:
    """Return the tag of everything that this probe makes."""
    return f"probe-{secrets.token_hex(4)}"


@pytest.fixture
def aws(site: str) -> Iterator[RealAws]:
    named = _named("IMAGEPORT_REAL_AWS_", ("region", "subnet", "bucket"))
    account = RealAws(named, site)
    try:
        yield account
    finally:
        account.remove_everything()


@pytest.fixture
def azure(site: str) -> Iterator[RealAzure]:
    needed = ("subscription", "resource_group", "location", "subnet_id", "job_container_url")
    account = RealAzure(_named("IMAGEPORT_REAL_AZURE_", needed), site)
    try:
        yield account
    finally:
        account.remove_everything()


@pytest.fixture
def gcp(site: str) -> Iterator[RealGcp]:
    named = _named("IMAGEPORT_REAL_GCP_", ("project", "region", "zone", "bucket"))
    account = RealGcp(named, site)
    try:
        yield account
    finally:
        account.remove_everything()


@pytest.fixture
def observed(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> Observed:
    """Return what prints a fact with the ids of its rows."""
    ids = ", ".join(request.function.probe_ids)

    def say(fact: str) -> None:
        with capsys.disabled():
            print(f"\n{ids}: {fact}")  # noqa: T201 - the fact is what the probe is for

    return say
