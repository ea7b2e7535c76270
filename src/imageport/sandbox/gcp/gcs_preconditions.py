# References: Cloud Storage, "Request preconditions"; XML API headers x-goog-if-generation-match.
"""Conditions that a request puts on what stands under a name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from imageport.sandbox.gcp.account import BUCKET
from imageport.sandbox.gcp.gcs_messages import (
    GcsRefusal,
    bad_request,
    condition_not_met,
    not_found,
)
from imageport.sandbox.gcp.gcs_store import StoredObject


@dataclass(frozen=True, slots=True)
class Preconditions:
    """None where nothing is asked; generation 0 means that there is no object."""

    generation: int | None = None
    not_generation: int | None = None
    metageneration: int | None = None
    not_metageneration: int | None = None
    live: int | None = None
    """The one generation that is meant: another one is as good as no object."""

    @classmethod
    def of_query(cls, query: Mapping[str, str], kind: str = "if") -> Preconditions:
        """Read the JSON API's parameters, ``ifGenerationMatch`` and its like."""
        return cls(
            _number(query, f"{kind}GenerationMatch"),
            _number(query, f"{kind}GenerationNotMatch"),
            _number(query, f"{kind}MetagenerationMatch"),
            _number(query, f"{kind}MetagenerationNotMatch"),
            _number(query, "generation"),
        )

    @classmethod
    def of_headers(cls, headers: Mapping[str, str]) -> Preconditions:
        """Read the XML API's headers."""
        return cls(
            _number(headers, "x-goog-if-generation-match"),
            metageneration=_number(headers, "x-goog-if-metageneration-match"),
        )

    @classmethod
    def of_source(cls, document: Mapping[str, Any]) -> Preconditions:
        """Read what a compose says of one of its sources."""
        given = document.get("objectPreconditions") or {}
        return cls(
            _number(given, "ifGenerationMatch"),
            live=_number(document, "generation"),
        )

    def check(self, found: StoredObject | None, *, reading: bool = False) -> None:
        """Refuse with 412, or with 304 when a reader asked for what differs."""
        if found is not None and self.live not in {None, found.generation}:
            raise not_found(found.name, BUCKET)
        generation = 0 if found is None else found.generation
        metageneration = 0 if found is None else found.metageneration
        wanted = ((self.generation, generation), (self.metageneration, metageneration))
        if any(needed is not None and needed != there for needed, there in wanted):
            raise condition_not_met()
        unwanted = ((self.not_generation, generation), (self.not_metageneration, metageneration))
        if any(needed is not None and needed == there for needed, there in unwanted):
            raise GcsRefusal(304, "notModified", "") if reading else condition_not_met()


def _number(source: Mapping[str, Any], name: str) -> int | None:
    if source.get(name) is None:
        return None
    text = str(source[name])
    if not text.isascii() or not text.isdigit():
        raise bad_request(f"Invalid value '{text}' for parameter '{name}'.", "invalidParameter")
    return int(text)
