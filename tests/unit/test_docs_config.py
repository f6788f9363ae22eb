"""The page of all config fields is what the code says now."""

import pytest

from crane_ray.cli.options import flagged_fields
from crane_ray.config import known_keys
from tests.docs_config import CONFIGS, PAGE, commands, flags_of, render, rows


def test_the_page_is_what_the_code_says() -> None:
    again = "python -m tests.docs_config makes it anew"
    assert PAGE.read_text(encoding="utf-8") == render(), again


def test_every_verb_that_takes_a_config_is_on_it() -> None:
    takes = {name for name, command in commands() if "--config" in flags_of(command)}
    assert takes == set(CONFIGS)


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_key_and_flag_of_a_verb_has_its_row(verb: str) -> None:
    model = CONFIGS[verb]
    flags = {field.flag.name for field in flagged_fields(model)}
    found = {entry.path.replace("[]", ""): entry for entry in rows(model, flags)}
    groups = {key.rpartition(".")[0] for key in known_keys(model)}
    assert set(known_keys(model)) - groups <= set(found) <= set(known_keys(model))
    for field in flagged_fields(model):
        assert found[field.path].flag == field.flag.name
