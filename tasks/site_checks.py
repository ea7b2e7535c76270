"""What a site needs for its runs, looked at from where this is called."""

from __future__ import annotations

import functools

from prefect import task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import WorkerFilter, WorkerFilterStatus
from prefect.exceptions import ObjectNotFound

from blocks import CloudTarget, PvsStore, Site
from imageport.doctor.check import Check, failed
from imageport.doctor.computer import computer_checks
from imageport.doctor.places import (
    cloud_checks,
    folder_checks,
    hypervisor_checks,
    payload_checks,
    state_checks,
)
from imageport.errors import ImageportError
from imageport.state.store import StateStore
from imageport.storage.memory import MemoryFolder
from tasks._places import (
    load_connection,
    load_site,
    load_target,
    saved_connections,
    saved_targets,
)
from tasks._policies import RETRYING

DEPLOYED = ("pvs-to-pvs", "mcs-to-pvs", "publish-to-store")
"""Flows of which a site needs one or more: images leave it, or arrive."""


@task(name="look-at-site", task_run_name="look at {site}", **RETRYING)
def look_at_site(site: str, targets: list[str]) -> list[Check]:
    """Return every check of a site, the computer of this worker among them."""
    return [*computer_checks(), *site_checks(load_site(site), targets)]


def site_checks(site: Site, targets: list[str]) -> list[Check]:
    """Return the checks of a site and of target blocks; every saved one when none is named."""
    open_store = functools.partial(site.store.share.open_folder, site.store.folder)
    checks = folder_checks(f"vDisk store {site.store.location}", open_store, writes=True)
    if site.exports is not None:
        checks += _export_checks(site, site.exports)
    checks += state_checks(site.open_state)
    checks += payload_checks(site.open_payload)
    with get_client(sync_client=True) as client:
        checks += _pool_checks(client, site.work_pool)
    references = targets or saved_targets()
    if not references:
        mend = "Save one, for example by `python -m flows.register --blocks FILE`."
        checks.append(Check("target blocks", passed=False, found="none is saved", mend=mend))
    for reference in references:
        checks += _target_checks(site, reference)
    return checks


def _export_checks(site: Site, exports: PvsStore) -> list[Check]:
    """Look at what master images need: the folder they are exported to, and every hypervisor."""
    open_folder = functools.partial(exports.share.open_folder, exports.folder)
    checks = folder_checks(f"export folder {exports.location}", open_folder, writes=True)
    for reference in saved_connections():
        try:
            connection = load_connection(reference)
        except ImageportError as error:
            checks.append(failed(reference, error))
            continue
        opened = functools.partial(
            connection.open_hypervisor, proxy=site.proxy, ca_bundle=site.ca_bundle
        )
        checks += hypervisor_checks(reference, opened)
    return checks


def _target_checks(site: Site, reference: str) -> list[Check]:
    try:
        target: CloudTarget = load_target(reference)
    except ImageportError as error:
        return [failed(reference, error)]
    # Nothing is made, so nothing is intended: the site's own ledger is not touched.
    ledger = StateStore(MemoryFolder()).ledger
    opened = functools.partial(
        target.open_cloud, ledger, "doctor",
        site=site.name, proxy=site.proxy, ca_bundle=site.ca_bundle,
    )  # fmt: skip
    return cloud_checks(reference, opened, target.grant_at)


def _pool_checks(client: SyncPrefectClient, pool: str) -> list[Check]:
    name = f"work pool {pool}"
    try:
        found = client.read_work_pool(pool)
    except ObjectNotFound:
        mend = "Make it: python -m flows.register --pools"
        return [Check(name, passed=False, found="there is no such pool", mend=mend)]
    if found.is_paused:
        mend = f"prefect work-pool resume {pool}"
        paused = Check(name, passed=False, found="it is paused", mend=mend)
    else:
        paused = Check(name, passed=True, found=f"type {found.type}")
    online = client.read_workers_for_work_pool(
        pool, worker_filter=WorkerFilter(status=WorkerFilterStatus(any_=["ONLINE"]))
    )
    names = ", ".join(worker.name for worker in online)
    worker = Check(
        f"{name}, workers", bool(online), names or "none is online",
        f"At the site: prefect worker start --pool {pool} --type process",
    )  # fmt: skip
    return [paused, worker, _deployment_check(client, pool)]


def _deployment_check(client: SyncPrefectClient, pool: str) -> Check:
    found = []
    for flow in DEPLOYED:
        try:
            client.read_deployment_by_name(f"{flow}/{pool}")
        except ObjectNotFound:
            continue
        found.append(f"{flow}/{pool}")
    mend = "Name the pool in prefect.yaml, then: python -m flows.register --deploy"
    name = f"work pool {pool}, deployments"
    return Check(name, bool(found), ", ".join(found) or "none of them", mend)
