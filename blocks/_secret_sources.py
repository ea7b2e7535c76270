"""Secrets by source.

Every client of the Prefect API may read a block, so the better block says where its worker finds
the secret.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr

from imageport.errors import InputError

StoredPassword = Annotated[
    SecretStr | None,
    Field(
        description="Password, readable by every client of this API; better name a source below."
    ),
]
PasswordVariable = Annotated[
    str, Field(description="Environment variable of the worker that holds the password.")
]
PasswordFile = Annotated[
    str, Field(description="File on the worker's machine that holds the password.")
]
"""The three sources of a password, in the order of the run form."""

_LIMIT_BYTES = 16 * 1024


def read_secret(what: str, stored: SecretStr | None, variable: str, file: str) -> str:
    """Return a secret from the one source that is set; `InputError` when it is not there.

    ``what`` is for messages, which never hold the secret.
    """
    if stored is not None:
        return stored.get_secret_value()
    if variable:
        if variable not in os.environ:
            raise _missing(what, f"the environment variable {variable} is not set")
        return os.environ[variable]
    if file:
        try:
            with Path(file).open("rb") as source:
                return source.read(_LIMIT_BYTES).decode().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise _missing(what, f"{file}: {type(error).__name__}") from None
    return ""


def _missing(what: str, cause: str) -> InputError:
    return InputError(
        f"Cannot read {what}: {cause}.",
        hint="Provide it on the worker's machine under the name that the block gives.",
    )
