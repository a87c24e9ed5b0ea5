"""What charts share: the colour and shape of a method, names, and grouping."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from splora.masks.criteria import look_of as look_of

Item = TypeVar("Item")
Key = TypeVar("Key")


def adapter_name(adapter: str) -> str:
    """An adapter as a heading."""
    return {"": "plain", "none": "plain", "splopa": "SPLoPA", "splora": "SPLoRA", "lora": "LoRA"}.get(adapter, adapter)


def grouped(items: Iterable[Item], key: Callable[[Item], Key]) -> dict[Key, list[Item]]:
    """Items by key, keys and items in the order in which they came."""
    groups: dict[Key, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return groups
