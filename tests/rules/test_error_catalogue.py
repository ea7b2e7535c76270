"""The error tree is complete, unique, documented and survives a process border."""

import inspect
import pickle
from pathlib import Path

import pytest

from imageport import errors
from imageport.errors import ImageportError

ROOT = Path(__file__).parents[2]
CLASSES = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, ImageportError)
]
IDS = [kind.__name__ for kind in CLASSES]


def test_every_code_names_one_class() -> None:
    codes = [kind.code for kind in CLASSES]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("kind", CLASSES, ids=IDS)
def test_every_class_has_a_code_of_its_own_and_is_drawn_in_the_tree(
    kind: type[ImageportError],
) -> None:
    assert "code" in vars(kind)
    assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("kind", CLASSES, ids=IDS)
def test_every_code_is_explained_in_the_docs(kind: type[ImageportError]) -> None:
    page = (ROOT / "docs" / "errors.md").read_text()
    retry = "yes" if kind.retryable else "no"
    assert f"| `{kind.code}` | {retry} |" in page


@pytest.mark.parametrize("kind", CLASSES, ids=IDS)
def test_an_error_crosses_a_process_border_with_all_its_facts(kind: type[ImageportError]) -> None:
    error = kind("Cannot read 'gold.vhdx': gone.", hint="Look again.", path="gold.vhdx", size=3)
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    assert type(copy) is kind
    assert copy.as_dict() == error.as_dict()


def test_an_error_says_message_code_and_hint_in_one_line() -> None:
    text = str(errors.NameTaken("Cannot publish 'gold.vhdx': the name exists."))
    assert text.startswith("Cannot publish 'gold.vhdx': the name exists. [name-taken] Hint: ")
