"""What both workflows do with an image that lies at the source site: all but the export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect import Task
from prefect.runtime import flow_run

from blocks import CloudTarget, Site
from flows._hand_over import HandedOver, publish_at_target
from imageport.citrix.names import check_vdisk_name
from imageport.citrix.vdisk_store import IfExists
from imageport.errors import SourceChanged
from imageport.workflow.choices import EnginePlace
from tasks._branch import current_branch
from tasks.catalogue import still_there
from tasks.models import GenerationResult, Route, SourceIdentity
from tasks.options import PrepareOptions
from tasks.preflight import identify, preflight
from tasks.prepare import prepare
from tasks.upload import compose_and_upload, upload


@dataclass(frozen=True, slots=True)
class Bringing:
    """What the operator chose for the stages after the image lies there."""

    publish_name: str
    if_exists: IfExists
    options: PrepareOptions
    keep_parent: bool
    engine: EnginePlace
    accept_lock: bool = False
    source_key: str = ""
    """The content that this run exported; empty where the image just lies there."""


@dataclass(frozen=True, slots=True)
class Brought:
    """What was done for one target."""

    published: HandedOver
    uploaded: GenerationResult | None = None
    """None when the target had the image prepared already."""

    @property
    def moved(self) -> bool:
        """Tell whether anything had to move."""
        return self.uploaded is not None or not self.published.already_there

    @property
    def figures(self) -> dict[str, Any]:
        """Return what the upload of this run took; nothing where the target had the content."""
        if self.uploaded is None or self.uploaded.run != str(flow_run.get_id()):
            return {}
        return self.uploaded.figures


def bring(route: Route, target: Site, cloud: CloudTarget, image: str, chosen: Bringing) -> Brought:
    """Preflight, upload, prepare, publish; what the target already has is left alone.

    Raises:
        SourceChanged: the folder gives another content than was exported.
    """
    identity = looked_at(route, image, chosen)
    return carried_out(route, target, cloud, identity, image, chosen)


def looked_at(route: Route, image: str, chosen: Bringing) -> SourceIdentity:
    """Tell what the target has of the image, and refuse now what would fail later.

    Raises:
        InputError: the target's store would not take the name.
        SourceChanged: the folder gives another content than was exported.
    """
    identity = identify(route, image, chosen.options, chosen.accept_lock)
    check_vdisk_name(chosen.publish_name or identity.image)
    if chosen.source_key not in {"", identity.source_key}:
        raise SourceChanged(
            f"Cannot bring '{image}': the export folder gives another content than this run "
            "exported.",
            hint="Another run exported it meanwhile. Start this one again if its snapshot is still "
            "wanted.",
        )
    if not identity.prepared_id:
        preflight(route, image, identity, chosen.options, chosen.accept_lock)
    return identity


def carried_out(
    route: Route,
    target: Site,
    cloud: CloudTarget,
    identity: SourceIdentity,
    image: str,
    chosen: Bringing,
) -> Brought:
    """Upload, prepare and publish what was looked at."""
    prepared_id = identity.prepared_id
    uploaded = None if prepared_id else _uploaded(route, identity, image, chosen)
    # Prepare and publish read nothing at the site: no other target has to wait while they last.
    current_branch().leave_source()
    if uploaded is not None:
        prepared_id = _made(route, prepare, uploaded.id, identity, chosen.options).id
    published = publish_at_target(
        target, cloud,
        prepared_id=prepared_id,
        name=chosen.publish_name or identity.image,
        if_exists=chosen.if_exists,
    )  # fmt: skip
    return Brought(published, uploaded)


def _uploaded(
    route: Route, identity: SourceIdentity, image: str, chosen: Bringing
) -> GenerationResult:
    accept_lock, keep_parent = chosen.accept_lock, chosen.keep_parent
    if chosen.engine is EnginePlace.SITE:
        wanted = (identity, chosen.options, accept_lock, keep_parent)
        return _made(route, compose_and_upload, image, *wanted)
    return _made(route, upload, image, identity.source_key, accept_lock, keep_parent)


def _made(route: Route, step: Task[..., GenerationResult], *arguments: Any) -> GenerationResult:
    """Return the generation a step makes; a remembered one counts only while the cloud has it."""
    result = step(route, *arguments)
    if still_there(route, result.id):
        return result
    return step.with_options(refresh_cache=True)(route, *arguments)
