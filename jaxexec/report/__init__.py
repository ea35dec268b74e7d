"""One self-contained HTML page of presentations: no script, no network, legible on paper and in the dark."""

from jaxexec.report.page import Image, Picture, Section, build, write

__all__ = ["Image", "Picture", "Section", "build", "write"]
