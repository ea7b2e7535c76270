# References: Azure REST API specifications, api versions of Microsoft.Compute, Microsoft.Network,
# Microsoft.Authorization (permissions) and Microsoft.Resources.
"""Which api versions each provider knows."""

from __future__ import annotations

import re

from imageport.sandbox.azure.arm_errors import ArmError

_FORM = re.compile(r"\d{4}-\d{2}-\d{2}(-preview)?")
_VERSIONS = {
    "Microsoft.Network": (
        "2020-11-01", "2021-02-01", "2021-03-01", "2021-05-01", "2021-08-01", "2022-01-01",
        "2022-05-01", "2022-07-01", "2022-09-01", "2022-11-01", "2023-02-01", "2023-04-01",
        "2023-05-01", "2023-06-01", "2023-09-01", "2023-11-01", "2024-01-01", "2024-03-01",
        "2024-05-01", "2024-07-01",
    ),
    "Microsoft.Authorization": ("2015-07-01", "2018-07-01", "2022-04-01"),
    "Microsoft.Resources": (
        "2020-06-01", "2020-10-01", "2021-01-01", "2021-04-01", "2022-09-01", "2023-07-01",
        "2024-03-01", "2024-07-01", "2024-11-01",
    ),
}  # fmt: skip
_COMPUTE = ("2021-07-01", "2026-04-01")
"""First and last version of Microsoft.Compute that the bodies here were checked against."""


def check_version(action: str, version: str) -> None:
    """Refuse a version that is malformed, or that the action's provider does not know."""
    provider = action.split("/", maxsplit=1)[0]
    if not _FORM.fullmatch(version):
        text = f"The api-version '{version}' is invalid. The supported versions are 'YYYY-MM-DD'."
        raise ArmError(400, "InvalidApiVersionParameter", text)
    if provider == "Microsoft.Compute":
        if _COMPUTE[0] <= version <= _COMPUTE[1]:
            return
        known = " to ".join(_COMPUTE)
    elif version in _VERSIONS[provider]:
        return
    else:
        known = ", ".join(_VERSIONS[provider])
    text = (
        f"No registered resource provider found for API version '{version}' for type "
        f"'{action.rsplit('/', 1)[0]}'. The supported api-versions are '{known}'."
    )
    raise ArmError(400, "NoRegisteredProviderFound", text)
