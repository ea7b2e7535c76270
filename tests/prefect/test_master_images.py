"""Master images through Prefect: cancelled, cut off from power, brought, and brought again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from imageport.cli.demo_workflow import WORKFLOWS
from imageport.hypervisors.vsphere.hypervisor import VsphereHypervisor
from imageport.hypervisors.vsphere.settings import VsphereSettings
from imageport.model import GenerationRole
from imageport.sandbox.processes import marked_processes
from imageport.sandbox.site import EmbeddedSite
from imageport.sandbox.site_facts import place_of
from imageport.sandbox.vcenter.master import MASTER
from tests.prefect.running_site import RunningSite
from tests.sandbox.vcenter.vcenter_lab import require_vcsim

pytestmark = [pytest.mark.prefect, pytest.mark.guest, pytest.mark.slow]
SLOW_BYTES_PER_SECOND = 4 * 2**20
IMAGE = "master"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSite]:
    require_vcsim()
    embedded = EmbeddedSite(tmp_path_factory.mktemp("masters"), hypervisor="vsphere")
    embedded.start()
    try:
        yield RunningSite(embedded)
    finally:
        embedded.stop()
        assert not marked_processes(embedded.root)


def started(site: RunningSite, **values: Any) -> str:
    chosen = WORKFLOWS["mcs-to-pvs"].parameters(site.site.root)
    return site.start("mcs-to-pvs/onprem", **{**chosen, "image": IMAGE, **values})


def left_of_exports(site: RunningSite) -> dict[str, list[str]]:
    """Snapshots, leases and half files; what the folder has under a name is no leftover."""
    exports, vcenter = site.folder("exports"), site.site.vcenter
    settings = VsphereSettings(
        vcenter.host, vcenter.port, vcenter.username, vcenter.password, vcenter.thumbprint
    )
    with VsphereHypervisor(settings) as hypervisor:
        snapshots = hypervisor.find_vm(MASTER.path).snapshots
    found = {
        "leases": [str(lease) for lease in vcenter.leases()],
        "snapshots": [snapshot.name for snapshot in snapshots],
        "halves": [path.name for path in exports.iterdir() if path.suffix == ".part"],
    }
    return {kind: names for kind, names in found.items() if names}


def under_way(site: RunningSite) -> str:
    site.site.vcenter.turn(bytes_per_second=SLOW_BYTES_PER_SECOND)
    run = started(site)
    site.until(lambda: site.progress_of(run, "export") >= 3 or site.api.state(run).is_terminal, 300)
    assert not site.api.state(run).is_terminal, site.api.state(run).message
    assert set(left_of_exports(site)) == {"leases", "snapshots", "halves"}
    return run


@pytest.mark.timeout(700)
def test_a_cancelled_export_leaves_no_snapshot_no_lease_and_no_half_file(
    site: RunningSite,
) -> None:
    run = under_way(site)
    site.api.cancel(run)
    try:
        assert site.api.wait(run, 90).type == "CANCELLED"
        site.until(lambda: left_of_exports(site) == {}, 60)
    finally:
        site.site.vcenter.turn(bytes_per_second=0.0)
    assert site.state().catalogue.list(image=IMAGE) == []


@pytest.mark.timeout(2400)
def test_an_export_whose_site_lost_power_goes_on_and_the_image_arrives(site: RunningSite) -> None:
    run = under_way(site)
    site.kill_source_worker()
    site.site.vcenter.turn(bytes_per_second=0.0)
    site.site.start_worker("onprem")
    state = site.wait_over_crashes(run, 2000)
    assert state.type == "COMPLETED", state.message
    assert left_of_exports(site) == {}
    assert site.leftovers() == {}
    catalogue = site.state().catalogue
    (exported,) = catalogue.list(image=IMAGE, role=GenerationRole.SOURCE)
    (uploaded,) = catalogue.list(image=IMAGE, target=place_of("aws"), role=GenerationRole.UPLOADED)
    assert exported.image_digest == uploaded.image_digest
    (prepared,) = catalogue.list(image=IMAGE, target=place_of("aws"), role=GenerationRole.PREPARED)
    (publication,) = prepared.publications
    assert (site.folder("target-store") / publication.file_name).exists()


@pytest.mark.timeout(600)
def test_a_master_that_did_not_change_moves_nothing(site: RunningSite) -> None:
    before = sorted(path.name for path in site.folder("exports").iterdir())
    run = started(site)
    state = site.api.wait(run, 500)
    assert (state.type, state.name) == ("COMPLETED", "AlreadyThere"), state.message
    assert sorted(path.name for path in site.folder("exports").iterdir()) == before
    assert left_of_exports(site) == {}
