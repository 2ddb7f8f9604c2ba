"""The pages of the documents show everything, and load and run nothing but their own style and script."""

import re
from base64 import b64encode
from hashlib import sha256
from html import unescape
from html.parser import HTMLParser

import pytest

from streams.reference.documents import Documents
from streams.reference.pages import Page
from streams.views import ROUTES

DOCUMENTS = Documents(ROUTES, "dabbawala", 4)
PAGES = {"http": DOCUMENTS.http_page, "events": DOCUMENTS.events_page}


class Elements(HTMLParser):
    """The elements of a page, with their attributes."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_a_page_loads_nothing(page: Page) -> None:
    elements = Elements(page.html).found
    assert not [tag for tag, attributes in elements if {"src", "style", "srcset"} & attributes.keys() or tag == "link"]
    assert not [name for _, attributes in elements for name in attributes if name.startswith("on")]


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_the_policy_admits_the_style_and_the_script(page: Page) -> None:
    for kind in ("style", "script"):
        [text] = re.findall(rf"<{kind}>(.*?)</{kind}>", page.html, re.DOTALL)
        digest = b64encode(sha256(text.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page.policy
    assert "unsafe" not in page.policy
    assert page.policy.startswith("default-src 'none'")


@pytest.mark.parametrize("page", PAGES.values(), ids=PAGES)
def test_every_link_within_a_page_has_its_target(page: Page) -> None:
    elements = Elements(page.html).found
    ids = [attributes["id"] for _, attributes in elements if "id" in attributes]
    links = [attributes.get("href") or "" for tag, attributes in elements if tag == "a"]
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)


def test_the_pages_show_every_request_and_record() -> None:
    assert PAGES["http"].html.count("<article") == sum(
        method in vars(view) for view in ROUTES.values() for method in ("get", "post")
    )
    assert PAGES["events"].html.count("<article") == PAGES["events"].html.count("JSON Schema</a>") + 1


def test_an_example_can_be_pasted_into_a_shell() -> None:
    text = unescape(PAGES["http"].html)
    assert 'curl -H \'Authorization: Bearer KEY\' \\\n  --json \'{"provider": "my-shop"' in text
    assert "http://127.0.0.1:6066/v1/orders/my-shop:1001/journal" in text
