"""The export stage of a flow: nothing is exported twice, and nothing of a failed one stays."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run

from blocks import HypervisorConnection, Site
from imageport.workflow.master import ExportWay
from tasks.export import (
    content_or_run,
    export,
    identify_master,
    release_master,
    still_exported,
)
from tasks.models import ExportResult, MasterRef


def master_of(  # noqa: PLR0913 - the words of the run form
    source: Site,
    hypervisor: HypervisorConnection,
    vm: str,
    *,
    image: str = "",
    snapshot: str = "",
    disk: str = "",
    way: ExportWay = ExportWay.AUTO,
) -> MasterRef:
    """Return the words of a run form as tasks take them, over saved blocks."""
    return MasterRef(
        site=source.saved_name,
        connection=f"{hypervisor.get_block_type_slug()}/{hypervisor.saved_name}",
        vm=vm,
        image=image,
        snapshot=snapshot,
        disk=disk,
        way=way,
    )


def exported(master: MasterRef, look: Callable[[str], object]) -> tuple[ExportResult, bool]:
    """Return the export of a master image, and whether this run wrote it.

    Before anything is exported, ``look`` is called with what the export will be remembered by; it
    raises to refuse. What the folder has already is not looked at.
    """
    begun = (flow_run.get_run_count() or 0) > 1  # what an attempt that was killed left is ours, too
    try:
        identity = identify_master(master)
        key = content_or_run(identity.key)
        if not identity.exported_id:
            look(key)
        begun = True
        result = export(master, key)
        if not still_exported(master, result):
            result = export.with_options(refresh_cache=True)(master, key)
    except (Exception, TerminationSignal):
        # Cancelled between two tries, a run has a snapshot and a half file that wait for the next.
        if begun:
            with contextlib.suppress(Exception):  # the first error is the one to report
                release_master(master)
        raise
    return result, result.run == str(flow_run.get_id())
