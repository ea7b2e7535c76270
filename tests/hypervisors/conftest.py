from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hypervisors.vsphere_laboratory import VsphereLab, VsphereSite
from tests.sandbox.vcenter.vcenter_lab import require_vcsim


@pytest.fixture(scope="session")
def vsphere_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VsphereSite]:
    require_vcsim()
    site = VsphereSite(tmp_path_factory.mktemp("vcenter"))
    try:
        yield site
    finally:
        site.leave()
        site.close()


@pytest.fixture
def vsphere_lab(vsphere_site: VsphereSite) -> Iterator[VsphereLab]:
    lab = VsphereLab(vsphere_site)
    try:
        yield lab
    finally:
        vsphere_site.tidy()
