"""A small fast BERT tokenizer: one token per word of the embedded corpora, and letters for everything else."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from splora.tasks.embedded import classification, corpus, words

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
#: Positions of the embedded model.
MAX_LENGTH = 512


def vocabulary() -> dict[str, int]:
    """Token numbers: special tokens, letters, digits and signs (also as word pieces), then the words in order."""
    letters = string.ascii_lowercase + string.digits
    pieces = [*SPECIAL, *string.punctuation, *letters, *(f"##{letter}" for letter in letters)]
    known = {word.lower() for word in words.vocabulary()}
    for text in (*corpus.texts(), *classification.texts()):
        known.update(corpus.SLOT.sub(" ", text).lower().translate(_SIGNS_TO_SPACES).split())
    return {token: number for number, token in enumerate((*pieces, *sorted(known - set(pieces))))}


def build_tokenizer() -> Any:
    """A `BertTokenizerFast` over `vocabulary`; the same every time."""
    from transformers import BertTokenizerFast

    return BertTokenizerFast(vocab=vocabulary(), do_lower_case=True, model_max_length=MAX_LENGTH)


def write_tokenizer(folder: str | Path) -> None:
    """Save the tokenizer into `folder`, where `AutoTokenizer.from_pretrained` finds it."""
    build_tokenizer().save_pretrained(folder)


_SIGNS_TO_SPACES = str.maketrans(dict.fromkeys(string.punctuation, " "))
