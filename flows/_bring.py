"""What both workflows do with an image that lies at the source site: all but the export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prefect import Task

from blocks import CloudTarget, Site
from flows._hand_over import HandedOver, publish_at_target
from imageport.citrix.vdisk_store import IfExists
from imageport.errors import SourceChanged
from imageport.workflow.choices import EnginePlace
from tasks.catalogue import still_there
from tasks.models import GenerationResult, Route
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


def bring(
    route: Route, target: Site, cloud: CloudTarget, image: str, chosen: Bringing
) -> tuple[HandedOver, bool]:
    """Preflight, upload, prepare, publish; returns the publication and whether anything moved.

    What the target already has is left alone.

    Raises:
        SourceChanged: the folder gives another content than was exported.
    """
    options, accept_lock, keep_parent = chosen.options, chosen.accept_lock, chosen.keep_parent
    identity = identify(route, image, options, accept_lock)
    if chosen.source_key not in {"", identity.source_key}:
        raise SourceChanged(
            f"Cannot bring '{image}': the export folder gives another content than this run "
            "exported.",
            hint="Another run exported it meanwhile. Start this one again if its snapshot is still "
            "wanted.",
        )
    prepared_id, moved = identity.prepared_id, False
    if not prepared_id:
        preflight(route, image, identity, options, accept_lock)
        if chosen.engine is EnginePlace.SITE:
            wanted = (identity, options, accept_lock, keep_parent)
            uploaded = _made(route, compose_and_upload, image, *wanted)
        else:
            uploaded = _made(route, upload, image, identity.source_key, accept_lock, keep_parent)
        prepared_id, moved = _made(route, prepare, uploaded.id, identity, options).id, True
    published = publish_at_target(
        target, cloud,
        prepared_id=prepared_id,
        name=chosen.publish_name or identity.image,
        if_exists=chosen.if_exists,
    )  # fmt: skip
    return published, moved


def _made(route: Route, step: Task[..., GenerationResult], *arguments: Any) -> GenerationResult:
    """Return the generation a step makes; a remembered one counts only while the cloud has it."""
    result = step(route, *arguments)
    if still_there(route, result.id):
        return result
    return step.with_options(refresh_cache=True)(route, *arguments)
