"""A tokenizer trained on a text: byte-level byte pairs, as OPT's own, with OPT's special tokens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

#: In the order of their numbers, which are those in OPT's vocabulary.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
#: The first of a text, and the end of what is generated.
BOUNDARY = "</s>"
#: Bytes, each of which is a token.
BYTES = 256


def train_tokenizer(texts: Iterable[str], size: int, positions: int) -> Any:
    """A fast tokenizer with a vocabulary of at most `size` tokens; the same for the same texts.

    `<unk>` in a text (WikiText's tokenized layout has it) is one token.

    Args:
        positions: tokens that its model takes.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOUNDARY,
        eos_token=BOUNDARY,
        unk_token="<unk>",
        pad_token="<pad>",
        model_max_length=positions,
    )
