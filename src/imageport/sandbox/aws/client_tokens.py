# References: Amazon EC2 API, "Ensuring idempotency".
"""ClientToken: the same request again returns the same answer, another one is refused."""

from __future__ import annotations

import json
from collections.abc import Callable

from moto.core.responses import ActionResult, BaseResponse
from moto.ec2.exceptions import EC2ClientError

from imageport.sandbox.aws.emulator import current

_answers: dict[tuple[str, str, str], tuple[str, ActionResult]] = {}


def idempotent(
    response: BaseResponse, action: str, make: Callable[[], ActionResult]
) -> ActionResult:
    """Return ``make()``, or its earlier answer for the same token and parameters.

    The answer holds moto's own objects, so it shows their state of now.
    """
    token = _parameter(response, "ClientToken")
    if not token or _parameter(response, "DryRun"):
        return make()
    key = (response.region, action, str(token))
    asked = json.dumps(_parameters(response), sort_keys=True, default=str)
    with current().lock:
        if key in _answers:
            known, answer = _answers[key]
            if known != asked:
                raise EC2ClientError(
                    "IdempotentParameterMismatch",
                    "The client token was used before with other parameters.",
                )
            return answer
        answer = make()
        _answers[key] = (asked, answer)
    return answer


def _parameter(response: BaseResponse, name: str) -> object:
    return response._get_param(name)  # noqa: SLF001 - moto's handlers have no public way


def _parameters(response: BaseResponse) -> dict[str, object]:
    return {name: value for name, value in response.data.items() if name != "Version"}
