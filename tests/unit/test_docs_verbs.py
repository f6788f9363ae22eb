"""The page of all verbs is what the command line says now, and its examples are taken."""

import pytest

from crane_ray.cli.main import VERBS
from tests.docs_verbs import PAGE, examples, help_of, render, verbs
from tests.page_commands import calls, parse

WITHOUT_EXAMPLES = {"jobs list", "jobs logs", "jobs stop"}
"""Below a verb that has them."""


def test_the_page_is_what_the_command_line_says() -> None:
    again = "python -m tests.docs_verbs makes it anew"
    assert PAGE.read_text(encoding="utf-8") == render(), again


def test_every_verb_is_on_it() -> None:
    assert VERBS.keys() <= {verb for verb, _ in verbs()}


@pytest.mark.parametrize("verb", [verb for verb, _ in verbs()])
def test_the_examples_of_a_verb_are_taken(verb: str) -> None:
    found = examples(help_of(verb, dict(verbs())[verb]))
    assert found or verb in WITHOUT_EXAMPLES
    for words in calls(found):
        assert parse(words) is not None


def test_examples_are_read_as_they_are_printed() -> None:
    text = (
        "Examples:\n  crane-ray train ... \\\n      --resume   goes on\n\n  crane-ray splits draws"
    )
    assert examples(text) == ["crane-ray train ... --resume"]
