"""HTML from Python values: what is text is escaped, what is markup already is not."""

from __future__ import annotations

from markupsafe import Markup, escape

#: Elements that have no content.
_EMPTY = {"path", "use", "rect", "image"}


def element(tag: str, /, *content: str | None, **attributes: object) -> Markup:
    """An element; attributes that are None or False are left out, `class_` is `class` and `_` in names is `-`."""
    told = "".join(
        _attribute(key, value) for key, value in attributes.items() if value is not None and value is not False
    )
    if tag in _EMPTY and not content:
        return Markup(f"<{tag}{told}/>")
    return Markup(f"<{tag}{told}>{join(*content)}</{tag}>")


def join(*content: str | None) -> Markup:
    """Pieces one after the other, None left out."""
    return Markup("").join(piece for piece in content if piece is not None)


def _attribute(name: str, value: object) -> str:
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
