"""One embedded site for all tests here: real Samba, Prefect server, workers, emulated clouds."""

from collections.abc import Iterator

import pytest

from imageport.sandbox.processes import marked_processes
from imageport.sandbox.sample.build import build_sample
from imageport.sandbox.sample.recipe import Variant
from imageport.sandbox.site import EmbeddedSite
from tests.prefect.running_site import IMAGE, RunningSite


@pytest.fixture(scope="session")
def running_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSite]:
    site = EmbeddedSite(tmp_path_factory.mktemp("site"), cloud="all")
    store = site.root / "shares" / "source-store"

    def put_image() -> None:
        build_sample(store / f"{IMAGE}.vhdx", Variant.SMALL)

    site.start(put_image)
    try:
        yield RunningSite(site)
    finally:
        site.stop()
        assert not marked_processes(site.root)
