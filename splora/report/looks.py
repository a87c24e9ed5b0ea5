"""What charts share: the colour and shape of a method, names, and grouping."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from splora.masks.criteria import look_of as look_of

Item = TypeVar("Item")
Key = TypeVar("Key")

#: Colours of the series after Okabe and Ito, made darker for light and lighter for dark backgrounds.
LIGHT = ("#57606a", "#0068a8", "#c44e00", "#946800", "#2585b8", "#00765a", "#a8487f", "#5b45a0")
DARK = ("#b6bec8", "#5fb0f0", "#ff8f4a", "#f2c14e", "#9bdcfa", "#35cda0", "#f09ccd", "#b9a6ff")


def adapter_name(adapter: str) -> str:
    """An adapter as a heading."""
    return {"": "plain", "none": "plain", "splopa": "SPLoPA", "splora": "SPLoRA", "lora": "LoRA"}.get(adapter, adapter)


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by key, keys and items in the order in which they came."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
