"""The prepared disk into the target site's vDisk store."""

from __future__ import annotations

from prefect import task
from prefect.events import emit_event

from imageport.citrix.vdisk_store import IfExists
from imageport.compose.report_page import page_text
from imageport.workflow.publish import publish as run_publish
from imageport.workflow.publish import published_as
from tasks._places import load_site, workplace
from tasks._policies import RETRYING
from tasks._reporting import artifact_key, publish_markdown, report_key, shown_progress
from tasks.models import PublicationResult, Route


@task(name="publish", task_run_name="publish {name}", **RETRYING)
def publish(route: Route, prepared_id: str, name: str, if_exists: IfExists) -> PublicationResult:
    """Write the vDisk into the store; one that is there already, unchanged, is left alone.

    Never cached by Prefect: the store itself says what it has.
    """
    here = load_site(route.target)
    with (
        shown_progress(name) as events,
        workplace(route, here, events) as place,
        here.store.open_store() as store,
    ):
        before = published_as(place, prepared_id, store, name)
        publication = run_publish(place, prepared_id, store, name, if_exists=if_exists)
    result = PublicationResult.of(publication, already_there=publication == before)
    publish_markdown(report_key("published", name), _page(result), "Where the vDisk is.")
    if not result.already_there:
        emit_event(
            "imageport.image.published",
            resource={"prefect.resource.id": f"imageport.image.{artifact_key(name)}"},
            payload={"store": result.store, "file_name": result.file_name},
        )
    return result


def _page(result: PublicationResult) -> str:
    return "\n".join(
        [
            f"# {page_text(result.file_name)}",
            f"- store: {page_text(result.store)}",
            f"- {result.size_bytes} bytes, image digest `{result.image_digest}`",
            "- already there, nothing moved" if result.already_there else "- newly written",
        ]
    )
