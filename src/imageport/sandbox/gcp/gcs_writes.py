# References: Cloud Storage JSON API v1, Objects: insert, compose, patch, delete;
# "Composite objects".
"""What makes, changes and removes objects."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final

from imageport.sandbox.gcp.account import BUCKET
from imageport.sandbox.gcp.gcs_access import CREATE, DELETE, GET, UPDATE, Access
from imageport.sandbox.gcp.gcs_messages import GcsRefusal, bad_request, not_found
from imageport.sandbox.gcp.gcs_parts import Digest, append_file
from imageport.sandbox.gcp.gcs_preconditions import Preconditions
from imageport.sandbox.gcp.gcs_resources import key_version
from imageport.sandbox.gcp.gcs_store import Check, ObjectFacts, ObjectStore, StoredObject

MOST_SOURCES: Final = 32
"""Of one compose."""
LONGEST_NAME_BYTES: Final = 1024
MOST_METADATA_BYTES: Final = 8 * 1024
"""Names and values of an object's own metadata together."""
_PROPERTIES: Final = (
    "contentType",
    "cacheControl",
    "contentDisposition",
    "contentLanguage",
)
_KNOWN: Final = {
    *_PROPERTIES,
    *("name", "bucket", "metadata", "crc32c", "md5Hash", "storageClass", "kind", "size"),
}
_BAD_NAME: Final = re.compile(r"[\r\n]|^\.\.?$|^\.well-known/acme-challenge/")


@dataclass(frozen=True, slots=True)
class NewObject:
    """What a request says of the object that it makes."""

    name: str
    properties: dict[str, str]
    metadata: dict[str, str]
    kms_key: str

    @classmethod
    def read(
        cls, name: str, document: Mapping[str, Any], query: Mapping[str, str], default_key: str = ""
    ) -> NewObject:
        """Take a resource that a client sent.

        Raises:
            GcsRefusal: a bad name, or members that no object may be given.
        """
        check_name(name)
        unknown = set(document) - _KNOWN
        if unknown:
            text = f"Cannot set {', '.join(sorted(unknown))}: this store does not offer it."
            raise bad_request(text, "notImplemented")
        if document.get("storageClass", "STANDARD") != "STANDARD":
            raise bad_request("Invalid argument.")
        properties = {item: str(document[item]) for item in _PROPERTIES if document.get(item)}
        properties.setdefault("contentType", "application/octet-stream")
        metadata = read_metadata(document.get("metadata") or {})
        return cls(name, properties, metadata, key_version(query.get("kmsKeyName") or default_key))

    def facts(self, digest: Digest, components: int = 0) -> ObjectFacts:
        """Return what is known when the bytes are there."""
        md5 = "" if components else digest.md5
        return ObjectFacts(
            digest.crc32c, md5, components, self.kms_key, self.properties, self.metadata
        )


def check_name(name: str) -> None:
    """Refuse what cannot be an object's name."""
    if not name:
        raise GcsRefusal(400, "required", "Required")
    if len(name.encode()) > LONGEST_NAME_BYTES or _BAD_NAME.search(name):
        raise bad_request("Invalid argument.")


def read_metadata(found: Any) -> dict[str, str]:
    """Take an object's own metadata: text by name.

    Raises:
        GcsRefusal: other values than text, or too many.
    """
    if not isinstance(found, dict) or any(not isinstance(text, str) for text in found.values()):
        raise bad_request("Invalid value for: metadata", "invalid")
    if sum(len(name.encode()) + len(text.encode()) for name, text in found.items()) > (
        MOST_METADATA_BYTES
    ):
        raise bad_request("The total size of user-provided metadata exceeds 8192 bytes.")
    return dict(found)


def default_key(access: Access) -> str:
    """Return the key that the bucket names for what names none itself; empty is Google's."""
    return str((access.knobs.bucket.get("encryption") or {}).get("defaultKmsKeyName", ""))


def writing(access: Access, name: str, preconditions: Preconditions) -> Check:
    """Return what is looked at before something is written under a name.

    Who overwrites needs the permission to delete. Nobody documents what one without it hears who
    asked that there be no object: a knob chooses.
    """

    def check(found: StoredObject | None) -> None:
        if access.knobs.preconditions_first:
            preconditions.check(found)
        if found is not None:
            access.check(DELETE, name)
        preconditions.check(found)

    return check


class ObjectWrites:
    """Changes of one bucket."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def insert(self, part: Path, new: NewObject, digest: Digest, check: Check) -> StoredObject:
        """Make an object of a part that was written; the part is gone afterwards."""
        try:
            return self._store.put(new.name, part, new.facts(digest), check)
        finally:
            part.unlink(missing_ok=True)

    def compose(
        self, name: str, document: Mapping[str, Any], query: Mapping[str, str], access: Access
    ) -> StoredObject:
        """Join up to 32 objects to a new one, which has no MD5.

        Raises:
            GcsRefusal: too many or no sources, one that is gone or changed, or no permission.
        """
        sources = document.get("sourceObjects")
        if not isinstance(sources, list) or not sources:
            text = "You must provide at least one source component."
            raise GcsRefusal(400, "required", text)
        if len(sources) > MOST_SOURCES:
            text = "The number of source components provided ({}) exceeds the maximum ({})."
            raise bad_request(text.format(len(sources), MOST_SOURCES))
        destination = document.get("destination") or {}
        new = NewObject.read(name, destination, query, default_key(access))
        check = writing(access, name, Preconditions.of_query(query))
        access.check(CREATE, name)
        check(self._store.get(name))
        digest, part = Digest(md5=False), self._store.new_part()
        try:
            with ExitStack() as stack:
                files = [stack.enter_context(self._open(source, access)) for source in sources]
                components = sum(count for count, _file in files)
                target = stack.enter_context(part.open("xb", buffering=0))
                for _count, file in files:
                    append_file(file, target, digest.update)
            return self._store.put(name, part, new.facts(digest, components), check)
        finally:
            part.unlink(missing_ok=True)

    def patch(
        self, name: str, document: Mapping[str, Any], query: Mapping[str, str], access: Access
    ) -> StoredObject:
        """Change metadata; what is null goes, metadata are merged by name."""
        access.check(UPDATE, name)
        wrong = set(document) - {*_PROPERTIES, "metadata"}
        if wrong:
            raise bad_request(f"Cannot patch {', '.join(sorted(wrong))}.")

        given = document.get("metadata", {})
        if not isinstance(given, dict | None):
            raise bad_request("Invalid value for: metadata")

        def change(facts: ObjectFacts) -> ObjectFacts:
            properties = _merged(facts.properties, {**document, "metadata": None})
            metadata = {} if given is None else _merged(facts.metadata, given)
            return replace(facts, properties=properties, metadata=read_metadata(metadata))

        conditions = Preconditions.of_query(query)
        found = self._store.patch(name, change, conditions.check)
        if found is None:
            raise not_found(name, BUCKET)
        return found

    def delete(self, name: str, conditions: Preconditions, access: Access) -> None:
        """Delete an object."""
        access.check(DELETE, name)
        if not self._store.delete(name, lambda found: _check_there(found, conditions)):
            raise not_found(name, BUCKET)

    def _open(self, source: Any, access: Access) -> _Source:
        if not isinstance(source, dict):
            raise bad_request("Invalid value for: sourceObjects")
        name = str(source.get("name", ""))
        check_name(name)
        access.check(GET, name)
        conditions = Preconditions.of_source(source)
        opened = self._store.open(name, lambda found: _check_there(found, conditions))
        if opened is None:
            raise not_found(name, BUCKET)
        found, file = opened
        return _Source(max(found.facts.components, 1), file)


class _Source:
    """One object that goes into another."""

    def __init__(self, components: int, file: BinaryIO) -> None:
        self._components = components
        self._file = file

    def __enter__(self) -> tuple[int, BinaryIO]:
        return self._components, self._file

    def __exit__(self, *_error: object) -> None:
        self._file.close()


def _check_there(found: StoredObject | None, conditions: Preconditions) -> None:
    """Check an object that is there; of one that is not, absence is what is said."""
    if found is not None:
        conditions.check(found)


def _merged(before: Mapping[str, str], changes: Mapping[str, Any]) -> dict[str, str]:
    merged = {**before, **changes}
    return {name: value for name, value in merged.items() if value is not None}
