# References: xapi-project/xen-api, ocaml/xapi-consts/api_errors.ml.
"""How xapi says no: a code and its parameters."""

from __future__ import annotations


class Failure(Exception):
    """An API call that fails; answered as ``ErrorDescription``."""

    def __init__(self, code: str, *parameters: str) -> None:
        super().__init__(code, *parameters)
        self.description = [code, *parameters]
