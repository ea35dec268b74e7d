"""The page: sections of prose, tables and figures, and at its foot what made it."""

import base64
import dataclasses
import importlib.resources
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxexec.presentation import Table, format_number, visible
from jaxexec.presentation.cells import is_number, scalar
from jaxexec.report.inline import inline_svg
from jaxexec.storage import Manifest, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure with a caption; the caption is also what a screen reader says.

    Attributes:
        figure: The figure.
        caption: What is seen, in a sentence.
    """

    figure: "Figure"
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Image:
    """A picture from a file, shown as it is: whatever it holds stays inside it and cannot act on the page.

    Attributes:
        data: The bytes of an SVG or PNG file.
        caption: What is seen, in a sentence.
    """

    data: bytes
    caption: str = ""


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        heading: Heading.
        prose: Plain text; a blank line begins a new paragraph. Nothing in it is taken as markup.
        contents: Tables, pictures and images, in order.
    """

    heading: str
    prose: str = ""
    contents: "Sequence[Table | Picture | Image | Figure]" = ()


def build(
    sections: Sequence[Section],
    title: str,
    *,
    subtitle: str = "",
    facts: Mapping[str, Any] | None = None,
    provenance: Manifest | Mapping[str, Any] | None = None,
) -> str:
    """One HTML document with everything inside it; the same arguments give the same text.

    Args:
        sections: The sections, in order.
        title: Title of the page.
        subtitle: One line below it.
        facts: The few numbers that matter most, by name; shown large at the top.
        provenance: What made the page, shown at its foot: a manifest, or names and texts.

    Raises:
        TypeError: A section holds something else than tables, pictures and figures.
    """
    counter = iter(range(10**9))
    return _template().render(
        title=visible(title, 200),
        subtitle=visible(subtitle, 400),
        facts=[(visible(name, 60), _fact(value)) for name, value in (facts or {}).items()],
        sections=[
            {
                "heading": visible(section.heading, 200),
                "paragraphs": _paragraphs(section.prose),
                "contents": [_content(item, counter) for item in section.contents],
            }
            for section in sections
        ],
        provenance=_provenance(provenance),
    )


def write(path: str | Path, sections: Sequence[Section], title: str, **options: Any) -> Path:
    """Write the page of `build`, whole or not at all.

    Args:
        path: The HTML file.
        sections: As `build`.
        title: As `build`.
        **options: The keyword arguments of `build`.

    Raises:
        FileError: The file cannot be written.
        TypeError: As `build`.
    """
    return write_text(path, build(sections, title, **options))


def _template():
    """The packaged template, with everything escaped that is not a presentation of our own."""
    import jinja2

    source = importlib.resources.files("jaxexec.report").joinpath("template.html.jinja")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source.read_text(encoding="utf-8"))


def _content(item: Any, counter) -> dict[str, Any]:
    """One table or figure as markup that is already safe."""
    from markupsafe import Markup

    if isinstance(item, Table):
        return {"table": Markup(item.html())}
    if isinstance(item, Image):
        return {"source": _data_address(item.data), "caption": visible(item.caption, 400)}
    picture = item if isinstance(item, Picture) else Picture(item)
    if not hasattr(picture.figure, "savefig"):
        raise TypeError(f"a section holds tables, pictures and images, not a {type(item).__name__}")
    caption = visible(picture.caption, 400)
    svg = inline_svg(picture.figure, f"f{next(counter)}-", caption or "figure")
    return {"svg": Markup(svg), "caption": caption}


def _data_address(data: bytes) -> str:
    """An image's bytes as an address that needs no network."""
    kind = "png" if data.startswith(b"\x89PNG") else "svg+xml"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _paragraphs(prose: str) -> list[str]:
    """Paragraphs of plain text, their line breaks folded."""
    return [visible(" ".join(part.split())) for part in prose.split("\n\n") if part.strip()]


def _fact(value: Any) -> str:
    return format_number(scalar(value)) if is_number(value) else visible(str(value), 40)


def _provenance(source: Manifest | Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """Names and texts for the foot of the page."""
    if source is None:
        return []
    if not isinstance(source, Manifest):
        return [(visible(str(name), 80), visible(str(value), 400)) for name, value in source.items()]
    rows = {
        "command": " ".join(source.command),
        "created": source.created,
        "device": source.device,
        "precision": source.precision,
        "versions": ", ".join(f"{name} {version}" for name, version in source.versions.items()),
    }
    rows |= {f"SHA-256 of {name}": digest for name, digest in source.inputs.items()}
    return _provenance({name: text for name, text in rows.items() if text})
