# References: Azure Compute REST: Disks and Snapshots, Grant Access and Revoke Access.
"""Access to the bytes of one disk or snapshot by a signed URL: granted, renewed, always revoked.

A granted URL is a secret, opens the whole disk, and keeps the disk from being deleted, attached or
finished; so every grant is in the ledger before it is asked for.
"""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Final, Literal

from azure.core.polling import LROPoller
from azure.mgmt.compute.models import AccessUri, GrantAccessData

from imageport.clouds.azure.account import AzureAccount
from imageport.clouds.azure.error_mapping import asked
from imageport.clouds.azure.names import DISKS, SNAPSHOTS, ArmId, parse_id, same_id
from imageport.clouds.azure.waiting import finished, retried, wait_until
from imageport.clouds.intents import Intent
from imageport.errors import CloudRefused, CloudThrottled, CloudUnavailable, ResourceGone

Mode = Literal["Read", "Write"]

KIND: Final = "access"
"""Of ledger entries and of what `list_ours` returns; also the role tag."""
RENEW_PAUSE_SECONDS: Final = 1.0
"""Least time between two grants: many requests fail at once when one URL ends."""
EARLY_PAUSE_SECONDS: Final = 60.0
MOST_FRUITLESS: Final = 20
"""Fresh URLs in a row that opened nothing; then it is not their age."""
REVOKE_SECONDS = 600.0
"""How long a revoke that is refused, because another one runs or hangs, is asked again."""
LET_GO_SECONDS: Final = 30.0
"""The same where something else has already failed or a signal may follow."""


def access_id(arm_id: str) -> str:
    """Return the id that the ledger and the sweep know the access to a resource by."""
    return f"{KIND}:{arm_id}"


class AccessGrant:
    """The access of one run to one disk or snapshot; may be used from several threads.

    Granted when first used. Time is counted from the grant and no clock is compared with Azure's:
    the URL does not even say when it ends.
    """

    def __init__(
        self,
        account: AzureAccount,
        arm_id: str,
        mode: Mode,
        seconds: float,
        *,
        patience: int | None = None,
    ) -> None:
        """Prepare; ``patience`` is for how many URLs that open nothing, None for the usual."""
        self.arm_id = arm_id
        self.mode: Mode = mode
        self._account = account
        self._seconds = seconds
        self._patience = patience
        self._lock = threading.Lock()
        self._url = ""
        self._asked = False
        """Azure may have granted although its answer never arrived."""
        self._opened = False
        """Whether the URL at hand ever opened the disk."""
        self._granted = self._renew_after = 0.0
        self._fruitless = 0

    def url(self) -> str:
        """Return the signed URL, a secret; asks for one when there is none or it ends soon.

        Raises:
            ResourceGone: the resource, or for writing its state of being uploaded, is gone.
        """
        with self._lock:
            if not self._url:
                self._grant()
            elif time.monotonic() >= self._renew_after:
                try:
                    self._grant(attempts=1)
                except (CloudUnavailable, CloudThrottled):
                    # The URL that is there may be good for a while yet.
                    self._renew_after = time.monotonic() + EARLY_PAUSE_SECONDS
            return self._url

    def renew(self, refused_url: str) -> None:
        """Ask again because ``refused_url`` was refused; does nothing when that was done just now.

        Raises:
            CloudRefused: many fresh URLs in a row were refused.
        """
        with self._lock:
            recent = time.monotonic() - self._granted < RENEW_PAUSE_SECONDS
            if self._url != refused_url or recent:
                return
            self._fruitless = 0 if self._opened else self._fruitless + 1
            if self._fruitless > (MOST_FRUITLESS if self._patience is None else self._patience):
                raise CloudRefused(
                    f"Cannot use the access to '{_name(self.arm_id)}': "
                    f"{self._fruitless} granted URLs in a row were refused.",
                    hint="Check network_access_policy, disk_access_id, and private endpoints and "
                    "firewalls between the worker and Azure storage.",
                )
            self._grant()

    def worked(self) -> None:
        """Note that the URL opened the disk."""
        self._opened = True

    def revoke(self, *, most_seconds: float | None = None) -> None:
        """End the access, if it was asked for; may be called again."""
        with self._lock:
            asked_for, self._asked, self._url = self._asked, False, ""
        if asked_for:
            end_access(self._account, self.arm_id, most_seconds=most_seconds)

    def let_go(self) -> None:
        """Revoke at the end of whatever it was for; where Azure is away the sweep does it.

        An error here would hide the one that ended the work.
        """
        with contextlib.suppress(CloudUnavailable, CloudThrottled):
            self.revoke(most_seconds=LET_GO_SECONDS)

    def _grant(self, *, attempts: int = 6) -> None:
        intent = self._account.intend(KIND, KIND, self.arm_id.lower(), self.mode)
        began = time.monotonic()
        self._asked = True
        url = retried(lambda: self._ask(intent), attempts=attempts)
        self._account.record(intent, access_id(self.arm_id))
        # While a grant lasts, asking again may return it unchanged: then not at every request.
        pause = self._seconds * (0.8 if url != self._url else 0.05)
        self._granted, self._renew_after = began, began + pause
        self._url, self._opened = url, False

    def _ask(self, intent: Intent) -> str:
        resource = parse_id(self.arm_id)
        action = f"{resource.type}/beginGetAccess/action"
        # The service takes whole seconds, and no fewer than a minute.
        wanted = GrantAccessData(access=self.mode, duration_in_seconds=max(60, int(self._seconds)))
        try:
            with asked(action, self.arm_id):
                poller = self._begin(resource, wanted)
            answer = finished(self._account, poller, action, self.arm_id)
        except ResourceGone:
            self._account.void(intent)
            raise
        except CloudRefused as error:
            raise self._explained(error) from None
        if not answer.access_sas:
            raise CloudUnavailable(f"Bad access to '{resource.name}': found no URL, needed one.")
        return answer.access_sas

    def _begin(self, resource: ArmId, wanted: GrantAccessData) -> LROPoller[AccessUri]:
        compute = self._account.clients.compute
        group, name = resource.group, resource.name
        if same_id(resource.type, DISKS):
            return compute.disks.begin_grant_access(group, name, wanted)
        return compute.snapshots.begin_grant_access(group, name, wanted)

    def _explained(self, error: CloudRefused) -> CloudRefused | ResourceGone:
        """Tell an upload that somebody ended from what is merely refused."""
        if self.mode == "Write" and _is_conflict(error):
            return ResourceGone(
                f"Cannot write '{_name(self.arm_id)}': it is no longer open for upload "
                f"({error.message})",
                **error.fields,
            )
        return error


def end_access(account: AzureAccount, arm_id: str, *, most_seconds: float | None = None) -> None:
    """End every access to a disk or snapshot; without any, or without the resource, no error.

    Raises:
        CloudUnavailable: still refused after ``most_seconds`` (None: `REVOKE_SECONDS`).
        CloudRefused: an upload that Azure takes for no disk.
    """
    resource = parse_id(arm_id)
    action = f"{resource.type}/endGetAccess/action"
    compute = account.clients.compute
    refused: list[str] = []

    def once() -> bool | None:
        try:
            with asked(action, arm_id):
                if same_id(resource.type, DISKS):
                    poller = compute.disks.begin_revoke_access(resource.group, resource.name)
                elif same_id(resource.type, SNAPSHOTS):
                    poller = compute.snapshots.begin_revoke_access(resource.group, resource.name)
                else:
                    raise ResourceGone(f"Bad resource '{arm_id}': nothing grants access to it.")
            finished(account, poller, action, arm_id)
        except ResourceGone:
            return True
        except CloudRefused as error:
            if not _is_conflict(error):
                raise
            refused.append(error.message)
            return None
        return True

    limit = REVOKE_SECONDS if most_seconds is None else most_seconds
    if wait_until(once, limit, pulse=account.live) is None:
        why = refused[-1] if refused else "no answer"
        raise CloudUnavailable(
            f"Cannot end the access to '{resource.name}': still refused after {limit:.0f} s: {why}",
            hint="Azure may hold a disk in ActiveUpload for a while; the sweep tries again.",
        )
    account.mark(access_id(arm_id), "deleted")


def _is_conflict(error: CloudRefused) -> bool:
    conflict = error.fields.get("azure_code") in {"Conflict", "OperationNotAllowed"}
    return conflict or error.fields.get("status") == 409


def _name(arm_id: str) -> str:
    return arm_id.rsplit("/", maxsplit=1)[-1]
