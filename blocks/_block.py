"""What every block of this project shares: no unknown field, and its own name as text."""

from __future__ import annotations

from typing import Any

from prefect.blocks.core import Block
from pydantic import ConfigDict, model_validator

from imageport.errors import InputError

_schema_extra: Any = Block.model_config["json_schema_extra"]


def _accept_references(schema: dict[str, Any], model: type[Block]) -> None:
    """Let the schema pass ``{"$ref": …}`` although the model forbids unknown fields.

    The server checks a deployment's parameters against this schema before it resolves what they
    refer to; ``additionalProperties: false`` would refuse every saved block.
    """
    _schema_extra(schema, model)
    schema.pop("additionalProperties", None)


class ImageportBlock(Block):
    """A block that refuses unknown fields, so that a misspelt setting is never ignored."""

    # Pydantic would quote what it was given, a secret among it, in the text of an error.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra=_accept_references,
    )

    @model_validator(mode="before")
    @classmethod
    def _without_slug(cls, values: Any) -> Any:
        """Take out the type slug, after checking it: Prefect adds it, and it is no field."""
        if not isinstance(values, dict) or "block_type_slug" not in values:
            return values
        found, needed = values["block_type_slug"], cls.get_block_type_slug()
        if found not in {None, needed}:
            raise ValueError(f"Bad block: found type {found}, needed {needed}.")
        return {name: value for name, value in values.items() if name != "block_type_slug"}

    @property
    def saved_name(self) -> str:
        """Return the name under which the block was saved; tasks get this, never the block.

        `InputError` for a block that was not saved: another process could not load it.
        """
        name = self._block_document_name
        if not name:
            raise InputError(
                f"Cannot pass on a {self.get_block_type_slug()} block: it is not saved.",
                hint="Save the block in Prefect and choose it by its name.",
            )
        return str(name)
