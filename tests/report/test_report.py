"""The page: self-contained, deterministic, and inert whatever the symbols in it are called."""

import html.parser
import re

import numpy as np
import pytest

from jaxexec import presentation, report, storage
from jaxexec.presentation import Table
from jaxexec.report import Picture, Section

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</svg></style></title><svg onload=alert(1)>",
    "javascript:alert(1)",
    "--><script>",
    "{{ 7 * 7 }}{% raw %}",
    "\x1b[31m\u202e\0",
    'id="x" href="#y" url(#z) #22303c',
    "&lt;b&gt;",
]
ALLOWED = frozenset(
    [
        "html",
        "head",
        "meta",
        "title",
        "style",
        "body",
        "header",
        "h1",
        "h2",
        "p",
        "main",
        "dl",
        "div",
        "dt",
        "dd",
        "nav",
        "ol",
        "li",
        "a",
        "section",
        "figure",
        "figcaption",
        "table",
        "caption",
        "thead",
        "tbody",
        "tfoot",
        "tr",
        "th",
        "td",
        "footer",
        "svg",
        "g",
        "path",
        "defs",
        "use",
        "clippath",
        "rect",
    ]
)
VOID = {"meta"}


class Page(html.parser.HTMLParser):
    """A page's elements with their attributes, and its texts; checks that elements close in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self.open = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data.strip())

    def attributes(self, name):
        return [attrs[name] for _, attrs in self.elements if name in attrs]


def page_with(text):
    x = np.linspace(0, 1, 5)
    figure = presentation.curves(x, {text: x, "b": 1 - x}, text, text, text)
    section = Section(text, f"{text}\n\nsecond", [Table(text, [text], [[text]], text), Picture(figure, text), figure])
    return report.build([section] * 4, text, subtitle=text, facts={text: text, "n": 3.0}, provenance={text: text})


@pytest.fixture(scope="module")
def pages():
    return {text: page_with(text) for text in HOSTILE}


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(text, pages):
    page = Page(pages[text])
    assert {tag for tag, _ in page.elements} <= ALLOWED
    names = {name for _, attrs in page.elements for name in attrs}
    assert not {name for name in names if name.startswith("on")} and "src" not in names
    assert presentation.visible(text) in page.texts
    assert "49" not in page.texts


@pytest.mark.parametrize("text", HOSTILE)
def test_links_lead_within_the_page_and_ids_are_unique(text, pages):
    page = Page(pages[text])
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    links = page.attributes("href") + page.attributes("xlink:href")
    links += re.findall(r"url\(([^)]*)\)", " ".join(page.attributes("clip-path") + page.attributes("style")))
    assert links and all(link.startswith("#") and link[1:] in ids for link in links)


def test_the_page_forbids_itself_scripts_and_the_network(pages):
    page = Page(pages[HOSTILE[0]])
    policy = [a["content"] for t, a in page.elements if t == "meta" and "http-equiv" in a]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    text = pages[HOSTILE[3]]
    addresses = set(re.findall(r"https?://[^\"' >]*", text))
    assert addresses <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}


def test_figures_follow_the_page_into_the_dark(pages):
    text = pages[HOSTILE[0]]
    svg = text[text.index("<svg ") : text.index("</svg>")]
    assert not re.search(r"#[0-9a-f]{6}\b", svg)
    defined = set(re.findall(r"(--[a-z0-9]+):", text))
    assert set(re.findall(r"var\((--[a-z0-9]+)\)", text)) <= defined
    for block in re.findall(r":root \{(.*?)\}", text, re.DOTALL):
        assert set(re.findall(r"(--[a-z0-9]+):", block)) == defined


def test_contents_appear_in_order_and_bytes_repeat():
    table = Table("A table", ["x"], [[1.5]])
    sections = [Section("First", "one\ntwo\n\nthree", [table]), Section("Second")]
    text = report.build(sections, "Title")
    page = Page(text)
    places = [page.texts.index(word) for word in ("First", "one two", "three", "A table", "1.500", "Second")]
    assert places == sorted(places)
    assert "<nav" not in text and "<footer" not in text and 'class="facts"' not in text
    assert report.build(sections, "Title") == text


def test_a_manifest_is_shown_at_the_foot(tmp_path):
    manifest = storage.Manifest.of(tmp_path, [], command=["jaxexec", "demo", "<x>"], device="cpu", precision="float32")
    path = report.write(tmp_path / "report.html", [], "Title", provenance=manifest)
    texts = Page(path.read_text()).texts
    assert "jaxexec demo <x>" in texts and "cpu" in texts and "float32" in texts and manifest.created in texts


def test_what_is_no_presentation_is_refused():
    with pytest.raises(TypeError, match="not a dict"):
        report.build([Section("a", "", [{}])], "Title")  # type: ignore[list-item]
