"""What is reachable and permitted: a site's stores, its state store, its files, a cloud."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from imageport.cloud import Cloud
from imageport.doctor.check import Check, all_well, failed
from imageport.errors import ImageportError, LeaseHeld
from imageport.hypervisor import Hypervisor
from imageport.model import GIB
from imageport.state.store import StateStore
from imageport.storage.folder import Folder

ORDINARY_IMAGE_BYTES = 64 * GIB
"""What `check_place` is asked about when nobody names an image: a usual golden image."""
LEASE = "imageport-doctor"
LEASE_SECONDS = 30.0


def folder_checks(
    name: str, open_folder: Callable[[], AbstractContextManager[Folder]], *, writes: bool = False
) -> list[Check]:
    """List a folder, and with ``writes`` make a small file in it and delete it again.

    Not being able to write is optional: a source is only read.
    """
    try:
        with open_folder() as folder:
            entries = folder.list()
            free = folder.free_bytes() // GIB
            reached = Check(name, passed=True, found=f"{len(entries)} entries, {free} GiB free")
            return [reached, _write_check(name, folder)] if writes else [reached]
    except ImageportError as error:
        return [failed(name, error)]


def _write_check(name: str, folder: Folder) -> Check:
    title = f"{name}, writing"
    probe = f"imageport-doctor-{secrets.token_hex(4)}.tmp"
    try:
        with folder.create(probe) as file:
            file.write_at(0, b"imageport doctor")
        folder.delete(probe)
    except ImageportError as error:
        mend = "Grant write, rename and delete if images are published here; a source needs none."
        return Check(title, passed=False, found=error.message, mend=mend, optional=True)
    return Check(title, passed=True, found="files can be made and deleted")


def state_checks(open_state: Callable[[], AbstractContextManager[StateStore]]) -> list[Check]:
    """Read the catalogue and take a lease, as every run does."""
    name = "state store"
    try:
        with open_state() as state:
            known = len(state.catalogue.list())
            reached = Check(name, passed=True, found=f"{known} generations in {state.location}")
            return [reached, _lease_check(state)]
    except ImageportError as error:
        return [failed(name, error)]


def _lease_check(state: StateStore) -> Check:
    name = "state store, leases"
    try:
        with state.lease(LEASE, f"doctor-{secrets.token_hex(4)}", LEASE_SECONDS):
            pass
    except LeaseHeld:
        return Check(name, passed=True, found="another doctor holds its lease right now")
    except ImageportError as error:
        return failed(name, error)
    return Check(name, passed=True, found="a lease can be taken and given back")


def payload_checks(
    open_payload: Callable[[], AbstractContextManager[Path | None]],
) -> list[Check]:
    """Pack the operator's folder and compare its digest, as preflight does."""
    try:
        with open_payload() as packed:
            found = "none is named" if packed is None else "its digest is the pinned one"
    except ImageportError as error:
        return [failed("operator's files", error)]
    return [Check("operator's files", passed=True, found=found)]


PERMITTED = "every action of a run is permitted"


def cloud_checks(
    name: str, open_cloud: Callable[[], Cloud], grant_at: Callable[[str], str]
) -> list[Check]:
    """Ask a cloud for every permission of a run, and whether an ordinary image fits there.

    ``grant_at`` says for an action where it is granted.
    """
    try:
        cloud = open_cloud()
    except ImageportError as error:
        return [failed(name, error)]
    try:
        return [*_permission_checks(name, cloud, grant_at), *_place_checks(name, cloud)]
    finally:
        cloud.close()


def hypervisor_checks(name: str, open_hypervisor: Callable[[], Hypervisor]) -> list[Check]:
    """Log in to a hypervisor, its certificate checked; no machine is looked at."""
    try:
        with open_hypervisor() as hypervisor:
            return [Check(name, passed=True, found=hypervisor.product())]
    except ImageportError as error:
        return [failed(name, error)]


def _permission_checks(name: str, cloud: Cloud, grant_at: Callable[[str], str]) -> list[Check]:
    try:
        gaps = cloud.check_permissions()
    except ImageportError as error:
        return [failed(name, error)]
    checks = [
        Check(
            gap.action, passed=False, found=gap.found,
            mend=f"Grant {gap.action} (for {gap.needed_for}) to {grant_at(gap.action)}.",
            optional=gap.optional,
        )
        for gap in gaps
    ]  # fmt: skip
    if all_well(checks):
        # What could not be asked is among the notes: nothing is promised then.
        found = "no action that a run needs was denied" if checks else PERMITTED
        checks.insert(0, Check(name, passed=True, found=found))
    return checks


def _place_checks(name: str, cloud: Cloud) -> list[Check]:
    title = f"{name}, room and machines"
    try:
        problems = cloud.check_place("doctor", ORDINARY_IMAGE_BYTES)
    except ImageportError as error:
        return [failed(title, error)]
    if not problems:
        return [Check(title, passed=True, found="an image of 64 GiB would fit")]
    return [
        Check(f"{name}, {problem.subject}", passed=False, found=str(problem), mend=problem.hint)
        for problem in problems
    ]
