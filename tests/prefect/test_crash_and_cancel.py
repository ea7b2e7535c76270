"""What a crash, a power cut and a cancel leave behind: a run that goes on, or nothing at all."""

import shutil
from collections.abc import Iterator

import pytest

from imageport.model import GenerationRole
from imageport.state.records import Generation
from tests.prefect.running_site import IMAGE, RunningSite

pytestmark = [pytest.mark.prefect, pytest.mark.guest, pytest.mark.slow]


@pytest.fixture
def slow_cloud(running_site: RunningSite) -> Iterator[None]:
    """Let the cloud take so few requests that an upload lasts long enough to be interrupted."""
    running_site.site.aws.turn(throttle_rps=8)
    yield
    running_site.site.aws.turn(throttle_rps=0)


def another_image(site: RunningSite, name: str) -> str:
    store = site.folder("source-store")
    shutil.copyfile(store / f"{IMAGE}.vhdx", store / f"{name}.vhdx")
    return name


def started_upload(site: RunningSite, image: str) -> str:
    run = site.start("pvs-to-pvs/onprem", image=image)
    site.until(lambda: site.progress_of(run, "upload") >= 3 or ended(site, run), 600)
    assert not ended(site, run), site.api.state(run).message
    return run


def ended(site: RunningSite, run: str) -> bool:
    return site.api.state(run).is_terminal


@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("slow_cloud")
def test_a_cancelled_run_leaves_nothing_after_two_minutes(running_site: RunningSite) -> None:
    image = another_image(running_site, "cancelled")
    run = started_upload(running_site, image)
    assert running_site.leftovers()
    running_site.api.cancel(run)
    assert running_site.api.wait(run, 90).type == "CANCELLED"
    running_site.until(lambda: running_site.leftovers() == {}, 120)
    assert running_site.state().catalogue.list(image=image) == []


@pytest.mark.timeout(2000)
@pytest.mark.usefixtures("slow_cloud")
def test_a_run_whose_site_lost_power_goes_on_where_it_was(running_site: RunningSite) -> None:
    image = another_image(running_site, "power-cut")
    run = started_upload(running_site, image)
    running_site.kill_source_worker()
    running_site.site.aws.turn(throttle_rps=0)
    running_site.site.start_worker("onprem")
    state = running_site.wait_over_crashes(run, 1500)
    assert state.type == "COMPLETED", state.message
    uploaded: Generation
    (uploaded,) = running_site.state().catalogue.list(image=image, role=GenerationRole.UPLOADED)
    assert uploaded.details["stats"]["bytes_resumed"] > 0
    assert running_site.leftovers() == {}
