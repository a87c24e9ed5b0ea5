"""What a model takes besides tokens, by its configuration: segments, positions and padding. Imports no torch.

A configuration is an object of transformers, or `config.json` as a namespace.
"""

from __future__ import annotations

import logging
import string
from typing import Any

from splora.anatomy import FAMILIES
from splora.errors import InputError

SEGMENTS = "token_type_ids"
#: Tokens of a window of text where nobody gives a length, at most: what published perplexities are measured at.
WINDOW = 2048
#: Of the tokens of a cased vocabulary, so many have a capital at least.
CASED_SHARE = 0.05
#: Two texts that every tokenizer joins.
_PAIR = ("a", "b")

logger = logging.getLogger(__name__)


def takes_segments(config: Any) -> bool:
    """Whether a model tells the sentences of a pair apart by `token_type_ids`."""
    family = FAMILIES.get(config.model_type)
    return family is not None and family.segments and int(getattr(config, "type_vocab_size", 2)) > 1


def positions(config: Any) -> int | None:
    """Tokens that a sequence may have; None where the configuration does not say."""
    most = getattr(config, "max_position_embeddings", None)
    if most is None:
        return None
    family = FAMILIES.get(config.model_type)
    if family is None or not family.positions_after_padding:
        return int(most)
    # RoBERTa counts positions from the number of the padding token on.
    padding = getattr(config, "pad_token_id", 1)
    return int(most) - int(1 if padding is None else padding) - 1


def padding(config: Any, tokenizer: Any) -> int:
    """What fills up rows: the token that the model takes for padding, else the tokenizer's, else the first.

    OPT's classifier looks for the last other token, and RoBERTa counts positions without it.
    """
    own = getattr(config, "pad_token_id", None)
    if own is not None and 0 <= int(own) < int(config.vocab_size):
        return int(own)
    return int(tokenizer.pad_token_id or 0)


def check_length(name: str, config: Any, tokens: int, what: str = "max_seq_length") -> None:
    """Refuse rows that are longer than a model has positions.

    Raises:
        InputError: they are.
    """
    most = positions(config)
    if most is not None and tokens > most:
        raise InputError(f"{what} is {tokens}; {name} has {most} positions.")


def fit_tokenizer(name: str, tokenizer: Any, config: Any) -> Any:
    """Let a tokenizer make what its model takes, whatever the names of inputs in its own file.

    Raises:
        InputError: it cuts texts as the vocabulary was not made for.
    """
    _check_case(name, tokenizer)
    names = [input_name for input_name in tokenizer.model_input_names if input_name != SEGMENTS]
    listed = SEGMENTS in tokenizer.model_input_names
    if takes_segments(config) and (listed or makes_segments(tokenizer)):
        names.append(SEGMENTS)
        if not listed:
            logger.warning(
                "%s: its tokenizer's model_input_names leave out %s; the model tells %d segments apart and gets them.",
                name,
                SEGMENTS,
                config.type_vocab_size,
            )
    tokenizer.model_input_names = names
    return tokenizer


def check_tokens(name: str, largest: int, config: Any) -> None:
    """Refuse rows with a token that the model has no embedding of.

    Raises:
        InputError: `largest`, a token's number, is none of the model's.
    """
    if largest >= int(config.vocab_size):
        raise InputError(
            f"{name}: its tokenizer numbers a token of the data {largest:,}, but the model knows {config.vocab_size:,} "
            f"(vocab_size in config.json); it is another model's tokenizer."
        )


def makes_segments(tokenizer: Any) -> bool:
    """Whether the sentences of a pair have different segments."""
    return len({*tokenizer(*_PAIR, return_token_type_ids=True)[SEGMENTS]}) > 1


def _check_case(name: str, tokenizer: Any) -> None:
    """Refuse a tokenizer that keeps capitals which its vocabulary lacks, or takes away those that it has."""
    unknown = tokenizer.unk_token_id
    vocabulary = tokenizer.get_vocab()
    if unknown is not None and all(letter in vocabulary for letter in string.ascii_lowercase):
        capitals = [tokenizer(letter, add_special_tokens=False)["input_ids"] for letter in string.ascii_uppercase]
        if all(ids == [unknown] for ids in capitals):
            raise InputError(
                f"{name}: its vocabulary has no capital letters, but its tokenizer keeps them, so that words with one "
                f"are unknown; set do_lower_case to true in tokenizer_config.json, or pass the right tokenizer.json."
            )
    backend = tokenizer.backend_tokenizer.normalizer
    if backend is None or backend.normalize_str(string.ascii_uppercase) != string.ascii_lowercase:
        return
    special = {*tokenizer.all_special_tokens, *tokenizer.get_added_vocab()}
    capitalized = sum(any("A" <= letter <= "Z" for letter in token) for token in vocabulary if token not in special)
    if capitalized > CASED_SHARE * len(vocabulary):
        raise InputError(
            f"{name}: its vocabulary has {capitalized:,} tokens with capital letters, but its tokenizer takes capitals "
            f"away; set do_lower_case to false in tokenizer_config.json, or pass the right tokenizer.json."
        )
