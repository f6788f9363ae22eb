from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crane_ray.pages.drawing import element, escaped, label, shortened, spread, svg


@given(st.text(st.characters()))
def test_any_text_makes_a_document_that_can_be_read(text: str) -> None:
    drawn = svg("a", (10, 10), title=text, about=text, body=label(1, 2, text, data_v=text))
    root = ElementTree.fromstring(drawn)
    assert len(list(root)) == 3
    words = root[2].text or ""
    assert words.replace("\ufffd", "") in text.replace("\r\n", "\n").replace("\r", "\n") or (
        "\ufffd" in words
    )


def test_markup_in_text_stays_text() -> None:
    assert escaped("<script>'\"&") == "&lt;script&gt;&#x27;&quot;&amp;"
    assert element("g", id='"><x') == '<g id="&quot;&gt;&lt;x"/>'


def test_an_element_without_children_is_closed_and_one_with_empty_text_is_not() -> None:
    assert element("td", "") == "<td></td>"
    assert element("path", d="M0", stroke_width=1.0, class_="a", x=None) == (
        '<path d="M0" stroke-width="1" class="a"/>'
    )


@given(st.lists(st.floats(0, 100), min_size=1, max_size=8), st.sampled_from([1.0, 5.0, 12.0]))
def test_places_are_spread_in_order_within_the_bounds(places: list[float], apart: float) -> None:
    moved = spread(places, apart, 0, 100)
    assert all(-1e-6 <= place <= 100 + 1e-6 for place in moved)
    ordered = [moved[index] for index in sorted(range(len(places)), key=lambda n: places[n])]
    assert all(after - before >= apart - 1e-6 for before, after in pairwise(ordered))


def test_places_far_enough_apart_stay_and_a_crowd_keeps_its_middle() -> None:
    assert spread([10, 90, 50], 20, 0, 100) == pytest.approx([10, 90, 50])
    assert spread([50, 50, 50], 10, 0, 100) == pytest.approx([40, 50, 60])


@given(st.text(max_size=60), st.floats(0, 300))
def test_shortened_text_is_short_and_keeps_both_ends(text: str, width: float) -> None:
    found = shortened(text, width)
    assert found == text or (len(found) < len(text) and found[0] == text[0])
    assert len(found) <= max(4, int(width / (0.56 * 12)))
