"""The published vDisk read once more, as its next reader will."""

from __future__ import annotations

from prefect import task

from imageport.workflow.verify import verify_publication
from tasks._places import load_site, workplace
from tasks._policies import RETRYING
from tasks._reporting import shown_progress
from tasks.models import Route, VerificationResult


@task(name="verify", task_run_name="verify {file_name}", **RETRYING)
def verify(route: Route, prepared_id: str, file_name: str) -> VerificationResult:
    """Compare the published vDisk with the catalogue."""
    here = load_site(route.target)
    with (
        shown_progress(file_name) as events,
        workplace(route, here, events) as place,
        here.store.open_store() as store,
    ):
        return VerificationResult.of(verify_publication(place, prepared_id, store, file_name))
