"""Starts and stops the emulated AWS account of an embedded site."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from imageport.sandbox.aws.iam_policy import Check
from imageport.sandbox.aws.knobs import Knobs
from imageport.sandbox.emulator_service import CloudService


class AwsService(CloudService):
    """One account in one process; its snapshots stay in ``root`` over a restart.

    Volumes, machines, buckets and networks end with `stop`.
    """

    title: ClassVar[str] = "AWS emulator"
    module: ClassVar[str] = "imageport.sandbox.aws.server"
    start_seconds: ClassVar[float] = 180.0
    """Importing moto takes 3 s of an idle core; seen to take 30 s on a busy machine."""
    short_lived: ClassVar[tuple[str, ...]] = ("machines", "volumes")

    def __init__(self, root: Path, **knobs: Any) -> None:
        super().__init__(root, Knobs(**knobs))

    def calls(self, *, asked: bool = False) -> list[str]:
        """Return the distinct IAM actions carried out since the start or `forget_calls`, sorted.

        ``asked`` takes refused requests and dry runs in: what the policy is asked about.
        """
        return list(self._ask("calls")["asked" if asked else "done"])

    def checks(self) -> list[Check]:
        """Return every distinct question that IAM was asked, with resources and tags."""
        return [Check(*item) for item in self._ask("calls")["checks"]]

    def _environment(self) -> dict[str, str]:
        environment = super()._environment()
        # Compiling moto anew at every start takes longer than everything else in it.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment
