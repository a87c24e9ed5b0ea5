"""A small BERT for the embedded corpora: configuration and initial weights.

Random weights alone would spend most of a short run on discovering two things that every pretrained encoder knows:
that equal words attend to each other, and that near ones do. The initial weights hold both. Words live in the
first dimensions of the embedding and positions, as waves, in the last; in every layer half of the heads compare words
(query and key start equal, a random rotation of the words' dimensions), the other half compare positions. All
weights are trained from there; the model is a stock BERT.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splora.tasks.embedded.tokenizer import MAX_LENGTH, build_tokenizer, vocabulary

#: Standard deviation of word embeddings, per dimension.
WORD_SCALE = 0.05
#: Noise on queries and keys, so that no two of them stay equal.
NOISE = 0.02
#: Positions this far apart still differ in the slowest wave.
LONGEST_WAVE = 100.0
SEED = 92


def embedded_config(**overrides: Any) -> Any:
    """`BertConfig` of the small model: 3 layers, 128 wide, 4 heads of 32, 512 neurons, no dropout."""
    from transformers import BertConfig

    settings = {
        "vocab_size": len(vocabulary()),
        "hidden_size": 128,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 512,
        "max_position_embeddings": MAX_LENGTH,
        "initializer_range": 0.05,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "architectures": ["BertModel"],
    }
    return BertConfig(**(settings | overrides))


def write_embedded_model(folder: str | Path, seed: int = SEED) -> Path:
    """Write configuration, tokenizer and seeded initial weights (safetensors); return the folder.

    The weights have no task head: `from_pretrained` of a task's class makes one.
    """
    embedded_model(seed).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return Path(folder)


def embedded_model(seed: int = SEED) -> Any:
    """The `BertModel` with the initial weights that the module's head describes; the same for the same seed."""
    from transformers import BertModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = BertModel(embedded_config())
        with torch.no_grad():
            _embeddings(model)
            for layer in model.encoder.layer:
                _attention(layer.attention.self, model.config.num_attention_heads)
    return model.eval()


def with_task_head(auto_model: Any, config: Any, seed: int = SEED, **options: Any) -> Any:
    """A task's model (`auto_model.from_config`) around the embedded encoder; torch's generator makes its head."""
    model = auto_model.from_config(config, **options)
    encoder = getattr(model, model.base_model_prefix)
    wanted = encoder.state_dict()
    encoder.load_state_dict(
        {name: weight for name, weight in embedded_model(seed).state_dict().items() if name in wanted}
    )
    return model


def waves(positions: int, width: int) -> Tensor:
    """Sines and cosines of `width` / 2 frequencies from 1 to 1 / `LONGEST_WAVE`, float (positions, width)."""
    steps = torch.arange(width // 2) / (width // 2 - 1)
    angles = torch.arange(positions)[:, None] * torch.exp(-steps * math.log(LONGEST_WAVE))
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def _embeddings(model: Any) -> None:
    table = model.embeddings
    head = model.config.hidden_size // model.config.num_attention_heads
    words = model.config.hidden_size - head
    table.word_embeddings.weight.normal_(0, WORD_SCALE)
    table.token_type_embeddings.weight.normal_(0, 0.3 * WORD_SCALE)
    for embedding in (table.word_embeddings, table.token_type_embeddings):
        embedding.weight[:, words:] = 0
    # √2: a wave then has the variance of a word's dimension, and neither side drowns the other in the norm.
    table.position_embeddings.weight.zero_()
    table.position_embeddings.weight[:, words:] = (
        waves(model.config.max_position_embeddings, head) * WORD_SCALE * 2**0.5
    )


def _attention(attention: Any, heads: int) -> None:
    width = attention.query.in_features
    head = width // heads
    for number in range(heads):
        rows = torch.zeros(head, width)
        if number < heads // 2:
            torch.nn.init.orthogonal_(rows[:, : width - head])
        else:
            rows[:, width - head :] = torch.eye(head)
        for linear in (attention.query, attention.key):
            linear.weight[number * head : (number + 1) * head] = rows + NOISE * torch.randn_like(rows)
