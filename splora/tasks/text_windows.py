"""Text as one row of tokens, and windows cut from it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from splora.tasks.cache import Arrays, cached, digest
from splora.tasks.squad_features import tokenizer_digest

Tokens = npt.NDArray[np.int32]


def tokenize(text: str, tokenizer: Any, name: str, cache_dir: str | None = None) -> Tokens:
    """The tokens of a whole text, int32 (tokens,), kept in the cache folder.

    The tokenizer's first-of-sequence token, where it has one, stands once, before the whole text, as OPT's own
    tokenizer puts it; no other special token is added.

    Args:
        name: of the cache file.
    """

    def make() -> Arrays:
        # `verbose`: that the text is longer than the model's positions is no news here.
        found = tokenizer(text, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]
        first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        return {"tokens": np.asarray([*first, *found], np.int32)}

    key = digest("text 1", tokenizer_digest(tokenizer), tokenizer.bos_token_id, text)
    return cached(cache_dir, name, key, make)["tokens"]


def consecutive_windows(tokens: Tokens, width: int, most: int | None = None) -> Tokens:
    """Windows one after the other, none sharing a token: (windows, width), `most` at most.

    What is left at the end is not used.
    """
    count = len(tokens) // width
    count = count if most is None else min(count, most)
    return tokens[: count * width].reshape(count, width)


def drawn_windows(tokens: Tokens, width: int, count: int, seed: int) -> Tokens:
    """`count` windows from random places, (count, width); no place twice unless there are fewer places than windows."""
    places = len(tokens) - width + 1
    starts = np.random.default_rng(seed).choice(places, count, replace=count > places)
    return np.take(tokens, starts[:, None] + np.arange(width))
