import base64
import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_ray.pages.document import document, facts_table, figures, section, wide
from tests.unit.pages.reader import Reader


@given(st.text(st.characters()))
def test_any_text_makes_a_whole_page(text: str) -> None:
    body = figures([(text, text, text)]) + facts_table({text: text})
    page = document(text, section(text, text, wide(text, body), key=text))
    reader = Reader(page)
    assert reader.open == []
    assert "script" not in reader.names


@pytest.mark.parametrize("script", ["", "1 + 1;"])
@pytest.mark.parametrize("pictures", [True, False])
def test_the_policy_allows_what_the_page_has_and_no_more(script: str, pictures: bool) -> None:
    page = document("a", "<p>b</p>", script=script, pictures=pictures)
    policy = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0].split("; ")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy[:2] == ["default-src 'none'", "style-src 'unsafe-inline'"]
    assert (f"script-src 'sha256-{digest}'" in policy) == bool(script)
    assert ("img-src data:" in policy) == pictures
    assert ("<script>" in page) == bool(script)


def test_rules_of_a_page_come_after_those_of_all() -> None:
    style = re.findall("<style>(.*?)</style>", document("a", "", style=".x{}"), re.DOTALL)[0]
    assert style.endswith(".x{}")
    assert "@media print" in style


def test_what_scrolls_is_reached_from_the_keyboard_and_has_a_name() -> None:
    reader = Reader(wide("Table", "x"))
    assert ("tabindex", "0") in reader.attributes
    assert ("aria-label", "Table") in reader.attributes
