"""HTML pages whole: the head with its policy, sections, figures, and tables that scroll."""

import base64
import hashlib
from collections.abc import Iterable, Mapping

from crane_ray.pages.drawing import element, escaped
from crane_ray.pages.style import STYLE


def document(
    title: str, body: str, *, style: str = "", script: str = "", pictures: bool = False
) -> str:
    """A page that fetches nothing, and lets no script run but its own.

    Args:
        title: text, of the page.
        body: markup.
        style: rules that come after those of all pages.
        script: the page's own.
        pictures: whether pictures may be shown that are written into the page (``data:``).
    """
    # The policy lets this script run and no other, should text ever pass for markup.
    allowed = ["default-src 'none'", "style-src 'unsafe-inline'"]
    if script:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        allowed.append(f"script-src 'sha256-{digest}'")
    if pictures:
        allowed.append("img-src data:")
    head = [
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{"; ".join(allowed)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        element("title", escaped(title)),
        f"<style>{STYLE}{style}</style>",
    ]
    ending = f"<script>{script}</script>\n" if script else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n' + "\n".join(head) + "\n</head>\n<body>\n"
        f"{body}\n{ending}</body>\n</html>\n"
    )


def section(
    name: str, note: str, content: str, *, drawn: bool = True, key: str | None = None
) -> str:
    """A part of the page under a heading.

    Args:
        name: the heading's text.
        note: text on how to read it; none if empty.
        content: markup.
        drawn: whether paper should have it on one page, as a drawing needs.
        key: id for links to it.
    """
    said = element("p", escaped(note), class_="note") if note else ""
    heading = element("h2", escaped(name))
    return element("section", heading, said, content, class_="drawn" if drawn else None, id=key)


def pair(*sections: str) -> str:
    """Sections side by side where there is room."""
    return element("div", *sections, class_="pair")


def figures(shown: Iterable[tuple[str, str, str]]) -> str:
    """The few figures that matter most: name, figure, and what is to be said of it, as text."""
    return element(
        "dl",
        *(
            element(
                "div",
                element("dt", escaped(name)),
                element("dd", escaped(figure), element("small", escaped(said))),
            )
            for name, figure, said in shown
        ),
        class_="figures",
    )


def wide(name: str, content: str) -> str:
    """Content that may be wider than the page and then scrolls, also from the keyboard."""
    return element("div", content, class_="wide", tabindex=0, role="region", aria_label=name)


def facts_table(facts: Mapping[str, str]) -> str:
    """Names and what is to be said of them, as text."""
    rows = [
        element("tr", element("th", escaped(name), scope="row"), element("td", escaped(text)))
        for name, text in facts.items()
    ]
    return element("table", element("tbody", *rows), class_="facts")
