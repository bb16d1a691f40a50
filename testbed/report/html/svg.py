"""Elements of inline SVG: colours come from the page's style, so that they follow light and dark."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

Attribute = str | float


def element(name: str, content: Iterable[str] = (), /, **attributes: Attribute) -> str:
    """An element; ``class_`` is ``class``, and ``_`` in names of attributes is ``-``."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(_text(value))}"' for key, value in attributes.items()
    )
    inner = "".join(content)
    return f"<{name}{written}>{inner}</{name}>" if inner else f"<{name}{written}/>"


def text(content: str, x: float, y: float, /, **attributes: Attribute) -> str:
    """A line of text with its baseline at ``y``."""
    return element("text", (escape(content),), x=x, y=y, **attributes)


def picture(width: float, height: float, content: Iterable[str], *, label: str, class_: str) -> str:
    """The whole of it; it shrinks with the page."""
    return (
        f'<svg class="{class_}" viewBox="0 0 {_text(width)} {_text(height)}" role="img"'
        f' aria-label="{escape(label)}" style="max-width:{_text(width)}px">{"".join(content)}</svg>'
    )


def _text(value: Attribute) -> str:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else str(value)
