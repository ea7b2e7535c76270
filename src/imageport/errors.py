"""Every error of this project, in one tree.

::

    ImageportError
    ├── InputError (ValueError)             what the operator gave is wrong
    │   └── MissingTool                     a program this machine needs is not installed
    ├── SourceError                         the image at the site
    │   ├── FileMissing (FileNotFoundError)
    │   ├── FileLocked                      somebody may be writing it
    │   ├── SourceChanged                   it changed while it was read
    │   ├── BadDisk (ValueError)            its bytes contradict the format's specification
    │   └── UnsupportedDisk                 sound, but not readable here
    ├── ShareError                          a file share
    │   ├── ShareUnreachable                retryable
    │   ├── ShareLoginRefused
    │   ├── ShareRefused                    the server says no to one operation
    │   ├── ShareFull (OSError)
    │   └── NameTaken (FileExistsError)     never replaced
    ├── HypervisorError                     vCenter, XenServer: where master images live
    │   ├── HypervisorUnreachable           retryable
    │   ├── HypervisorLoginRefused
    │   ├── CertificateRefused              not the certificate that was pinned or trusted
    │   ├── HypervisorRefused               it says no to one operation
    │   ├── VmMissing (LookupError)         no such machine, snapshot or disk
    │   └── ExportInterrupted               retryable: the stream was cut, the lease ran out
    ├── CloudError                          the cloud's answer
    │   ├── CloudUnavailable                retryable: 5xx, time-outs, dropped connections
    │   ├── CloudThrottled                  retryable: slow down
    │   ├── CloudRefused                    a 4xx that asking again does not change
    │   ├── PermissionMissing (PermissionError)
    │   └── ResourceGone                    what the catalogue names no longer exists
    ├── TransferError
    │   ├── VerificationFailed              what was read back is not what was sent
    │   └── TransferCancelled
    ├── ComposeError                        preparing Windows
    │   ├── GuestRefused                    the guest must not be touched; every reason at once
    │   ├── EngineFailed                    the compositing engine did not finish
    │   ├── VerdictFailed                   prepared, but it would not boot or stream
    │   └── FirstBootFailed                 the one boot did not end as it must
    └── StateError                          catalogue, ledger, leases
        ├── LeaseHeld                       retryable: another run works on this image and target
        ├── LeaseLost                       another run took over; stop writing
        └── RecordMissing (LookupError)

Each class has a stable ``code`` that scripts may match, ``retryable`` by which alone tasks decide
to try again, and a ``hint``: what the operator does next. Messages follow
``Cannot <verb> '<object>': <cause>`` or ``Bad <thing>: found X, needed Y``. Standard library only:
this module also travels inside the compositing engine.
"""

from __future__ import annotations

from typing import Any, ClassVar


class ImageportError(Exception):
    """Root of the tree; ``fields`` hold the typed facts behind the message."""

    code: ClassVar[str] = "imageport"
    retryable: ClassVar[bool] = False
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str = "", **fields: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.fields: dict[str, Any] = fields

    def __str__(self) -> str:
        return f"{self.message} [{self.code}]" + (f" Hint: {self.hint}" if self.hint else "")

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions cross process borders here (Prefect, worker pools); the default loses keywords.
        return (_rebuild, (type(self), self.message, self.hint, self.fields))

    def as_dict(self) -> dict[str, Any]:
        """Return the error as JSON-ready facts for ``--json`` output and reports."""
        return {
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "retryable": self.retryable,
            "fields": {name: _plain(value) for name, value in self.fields.items()},
        }


def _rebuild(
    kind: type[ImageportError], message: str, hint: str, fields: dict[str, Any]
) -> ImageportError:
    return kind(message, hint=hint, **fields)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)


class InputError(ImageportError, ValueError):
    """What the operator gave is wrong; ``fields['problems']`` lists everything at once."""

    code = "input-invalid"
    default_hint = "Correct the values named in the message and start again."


class MissingTool(ImageportError):
    """A program or library that this step needs is not installed on this machine."""

    code = "tool-missing"
    default_hint = "Run `imageport doctor` for what is missing and how to install it."


class SourceError(ImageportError):
    """The image at the site cannot be used."""

    code = "source"


class FileMissing(SourceError, FileNotFoundError):
    """The named file does not exist."""

    code = "file-missing"
    default_hint = "Check the name; names on a share are relative to the share's folder."


class FileLocked(SourceError):
    """Somebody may be writing the file, so a copy of it could be torn."""

    code = "file-locked"
    default_hint = (
        "Shut down the device that runs from this vDisk in private or maintenance mode, or promote "
        "the version to Production; then start again."
    )


class SourceChanged(SourceError):
    """The file changed while it was read; what was read is discarded."""

    code = "source-changed"
    default_hint = "Make sure nobody writes the image during the run; then start again."


class BadDisk(SourceError, ValueError):
    """The bytes contradict the format's specification; names offset, found and needed."""

    code = "disk-corrupt"
    default_hint = "The file is damaged or cut short: restore it from a good copy."


class UnsupportedDisk(SourceError):
    """A sound disk that this release cannot read."""

    code = "disk-unsupported"


class ShareError(ImageportError):
    """A file share did not do what was asked."""

    code = "share"


class ShareUnreachable(ShareError):
    """No answer from the file server, or the connection dropped."""

    code = "share-unreachable"
    retryable = True
    default_hint = "Check the server's name, port 445 and the firewall between worker and server."


class ShareLoginRefused(ShareError):
    """The server refused the user or the password."""

    code = "share-login-refused"
    default_hint = "Check user, domain and password in the SMB share block."


class ShareRefused(ShareError):
    """The server refused one operation (rights, sharing, name)."""

    code = "share-refused"
    default_hint = "Check the account's rights on the share and on its folder."


class ShareFull(ShareError, OSError):
    """No space left on the share or folder."""

    code = "share-full"
    default_hint = "Free space in the folder named above; the partial file was removed."


class NameTaken(ShareError, FileExistsError):
    """A file with the target's name exists; it is never replaced."""

    code = "name-taken"
    default_hint = "Choose another name, or publish as a new version."


class HypervisorError(ImageportError):
    """A hypervisor's management did not do what was asked."""

    code = "hypervisor"


class HypervisorUnreachable(HypervisorError):
    """No answer from vCenter, the host or the pool, or it fails on its side."""

    code = "hypervisor-unreachable"
    retryable = True
    default_hint = (
        "Check the server's name and port 443 from this worker; exports come from the hosts "
        "themselves, so each host must be reachable too."
    )


class HypervisorLoginRefused(HypervisorError):
    """The hypervisor refused the user or the password."""

    code = "hypervisor-login-refused"
    default_hint = "Check user and password in the connection block."


class CertificateRefused(HypervisorError):
    """The server's certificate is not the pinned one, or no authority we trust signed it."""

    code = "certificate-refused"
    default_hint = (
        "If the certificate was renewed, compare its SHA-256 thumbprint on the server itself and "
        "put that into the connection block; or name the file of the private CA."
    )


class HypervisorRefused(HypervisorError):
    """The hypervisor refused one operation: a privilege, a state, a limit."""

    code = "hypervisor-refused"


class VmMissing(HypervisorError, LookupError):
    """There is no such machine, snapshot or disk."""

    code = "vm-missing"
    default_hint = "Check the name as the hypervisor's inventory shows it, with its folders."


class ExportInterrupted(HypervisorError):
    """An export ended before the disk did: connection cut, lease or task ended."""

    code = "export-interrupted"
    retryable = True
    default_hint = "It is tried again; if it happens often, look at the link and the host's load."


class CloudError(ImageportError):
    """A cloud refused, failed or did not answer."""

    code = "cloud"


class CloudUnavailable(CloudError):
    """The service failed on its side or did not answer in time."""

    code = "cloud-unavailable"
    retryable = True


class CloudThrottled(CloudError):
    """The service asks for fewer requests."""

    code = "cloud-throttled"
    retryable = True


class CloudRefused(CloudError):
    """A request that asking again does not make right."""

    code = "cloud-refused"


class PermissionMissing(CloudError, PermissionError):
    """The credentials lack a permission; names the exact action."""

    code = "permission-missing"
    default_hint = "Grant the named actions to the role in the target block."


class ResourceGone(CloudError):
    """A disk, snapshot or volume that our records name no longer exists."""

    code = "resource-gone"
    default_hint = "It was deleted outside this product; the next run makes it again."


class TransferError(ImageportError):
    """Moving blocks failed."""

    code = "transfer"


class VerificationFailed(TransferError):
    """What was read back differs from what was sent; nothing was published."""

    code = "verification-failed"
    default_hint = "Start again; if it happens twice, check the storage named above."


class TransferCancelled(TransferError):
    """The operator cancelled; whoever started the step removes what is half made."""

    code = "cancelled"


class ComposeError(ImageportError):
    """Preparing the Windows image failed."""

    code = "compose"


class GuestRefused(ComposeError):
    """The guest must not be touched; ``fields['refusals']`` has every reason with its hint."""

    code = "guest-refused"


class EngineFailed(ComposeError):
    """The compositing engine did not finish; ``fields['log']`` has its last lines."""

    code = "engine-failed"


class VerdictFailed(ComposeError):
    """The image was prepared but would not boot or stream; ``fields['items']`` names why."""

    code = "verdict-failed"


class FirstBootFailed(ComposeError):
    """The one boot crashed, hung past its deadline or reported failure."""

    code = "first-boot-failed"


class StateError(ImageportError):
    """Catalogue, ledger, journal or lease."""

    code = "state"


class LeaseHeld(StateError):
    """Another run holds this image and target."""

    code = "lease-held"
    retryable = True
    default_hint = "Wait for the other run, or cancel it; its lease runs out by itself."


class LeaseLost(StateError):
    """Another run took over this image and target; this one must stop writing."""

    code = "lease-lost"


class RecordMissing(StateError, LookupError):
    """The state store has no such record."""

    code = "record-missing"
