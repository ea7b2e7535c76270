"""A set of digests knows what is in it as Python's own does, and gives each a place."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imageport.clouds.gcp.digest_set import ABSENT, DigestSet

DIGESTS = st.lists(
    st.one_of(
        st.binary(min_size=32, max_size=32),
        st.integers(0, 40).map(lambda number: hashlib.sha256(b"%d" % number).digest()),
        st.integers(0, 40).map(lambda number: number.to_bytes(32, "big")),
    ),
    max_size=60,
)


@given(DIGESTS, DIGESTS)
def test_it_holds_what_was_given_once_and_in_order(given_: list[bytes], others: list[bytes]):
    found = DigestSet(iter(given_))
    assert list(found) == sorted(set(given_))
    assert len(found) == len(set(given_))
    for place, digest in enumerate(found):
        assert found.place(digest) == place
        assert found.at(place) == digest
    for digest in others:
        assert (digest in found) == (digest in given_)
        assert (found.place(digest) == ABSENT) == (digest not in given_)


def test_what_is_no_digest_is_refused_and_in_no_set():
    with pytest.raises(ValueError, match="found 31 bytes, needed 32"):
        DigestSet([bytes(31)])
    assert "0" * 32 not in DigestSet([])
