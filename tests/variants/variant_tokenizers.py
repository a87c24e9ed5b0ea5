"""Variants of the files of a tokenizer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def _told(**changes: Any) -> Callable[[Path], None]:
    """Changes of `tokenizer_config.json`; None removes a setting."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer_config.json"
        settings = json.loads(path.read_text(encoding="utf-8")) | changes
        settings = {name: value for name, value in settings.items() if value is not None}
        path.write_text(json.dumps(settings), encoding="utf-8")

    return change


def _in_file(**changes: Any) -> Callable[[Path], None]:
    """Changes of `tokenizer.json`."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")

    return change


def _keeping_capitals(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    _in_file(normalizer=content["normalizer"] | {"lowercase": False})(folder)
    _told(do_lower_case=False)(folder)


def _longer(folder: Path) -> None:
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    words = content["model"]["vocab"]
    shifted = {word: number + 1000 * (number > 120) for word, number in words.items()}
    _in_file(model=content["model"] | {"vocab": shifted})(folder)


_CUT = {"direction": "Right", "max_length": 9, "strategy": "LongestFirst", "stride": 0}
_FILL = {"strategy": {"Fixed": 48}, "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
TOKENIZERS: dict[str, Callable[[Path], None]] = {
    "plain": lambda folder: None,
    "no length": _told(model_max_length=None),
    "short": _told(model_max_length=8),
    "endless": _told(model_max_length=10**30),
    "without segments": _told(model_input_names=["input_ids", "attention_mask"]),
    "with segments": _told(model_input_names=["input_ids", "token_type_ids", "attention_mask"]),
    "left": _told(padding_side="left"),
    "cuts": _in_file(truncation=_CUT),
    "fills": _in_file(padding=_FILL | {"pad_token": "[PAD]"}),
    "capitals": _keeping_capitals,
    "another's": _longer,
    "no file": lambda folder: (folder / "tokenizer.json").unlink(),
}
