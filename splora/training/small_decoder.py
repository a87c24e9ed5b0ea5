"""Small decoders that the project trains itself, in minutes on a processor: real language to prune and to quantize."""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from splora import anatomy
from splora.errors import InputError, problems_of
from splora.tasks.byte_pairs import BYTES, SPECIAL, train_tokenizer
from splora.tasks.language_modelling import TextDataModule
from splora.tasks.text_sources import TEXT_TASKS, read_text
from splora.training.language_model import LanguageModule
from splora.training.options import OptimizerOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SmallDecoder(ABC):
    """Sizes and training of a model. The standard ones take about eight minutes on one core with bf16.

    Attributes:
        vocabulary: tokens at most.
        positions: tokens per window.
        dropout: of what the output projections of attention and feed-forward part give.
        steps: of the optimizer.
        batch_size: windows per step, from random places of the text.
    """

    vocabulary: int = 4096
    positions: int = 512
    layers: int = 4
    hidden: int = 256
    heads: int = 8
    neurons: int = 1024
    dropout: float = 0.1
    steps: int = 800
    batch_size: int = 8
    learning_rate: float = 2e-3
    weight_decay: float = 0.1
    seed: int = 0

    @abstractmethod
    def config(self, tokenizer: Any) -> Any:
        """The configuration of transformers for a model with this tokenizer."""

    def shared(self, tokenizer: Any) -> dict[str, Any]:
        """What the configurations of all families call alike."""
        return {
            "vocab_size": math.ceil(len(tokenizer) / 8) * 8,
            "hidden_size": self.hidden,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "max_position_embeddings": self.positions,
            **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")},
        }

    def check(self) -> None:
        """Find sizes that do not fit.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = [
            f"{name} is {getattr(self, name)}; it must be 1 or larger."
            for name in ("layers", "hidden", "heads", "neurons", "steps", "batch_size")
            if getattr(self, name) < 1
        ]
        if self.vocabulary < BYTES + len(SPECIAL):
            problems.append(
                f"vocabulary is {self.vocabulary}; the bytes and special tokens alone are {BYTES + len(SPECIAL)}."
            )
        if self.positions < 2:
            problems.append(f"positions is {self.positions}; it must be 2 or larger.")
        if not 0 <= self.dropout < 1:
            problems.append(f"dropout is {self.dropout}; it must be 0 or larger, and smaller than 1.")
        if not 0 < self.learning_rate < math.inf:
            problems.append(f"learning_rate is {self.learning_rate}; it must be larger than 0, and a number.")
        if not 0 <= self.weight_decay < math.inf:
            problems.append(f"weight_decay is {self.weight_decay}; it must be 0 or larger, and a number.")
        if self.heads > 0 and self.hidden % self.heads:
            problems.append(f"hidden is {self.hidden}, which {self.heads} heads cannot share equally.")
        if problems:
            raise InputError(problems)


@dataclass(frozen=True)
class SmallOPT(SmallDecoder):
    """A small OPT."""

    def config(self, tokenizer: Any) -> Any:
        """The configuration of transformers for a model with this tokenizer."""
        from transformers import OPTConfig

        return OPTConfig(
            **self.shared(tokenizer),
            word_embed_proj_dim=self.hidden,
            ffn_dim=self.neurons,
            dropout=self.dropout,
            architectures=["OPTForCausalLM"],
        )


@dataclass(frozen=True)
class SmallLlama(SmallDecoder):
    """A small Llama with as many parameters per layer as the small OPT: gated, its queries in groups.

    Attributes:
        key_value_heads: heads of key and value, each shared by equally many heads of the query.
    """

    neurons: int = 688
    key_value_heads: int = 4

    def check(self) -> None:
        """Find sizes that do not fit.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = problems_of(super().check)
        if self.key_value_heads < 1 or self.heads % self.key_value_heads:
            problems.append(
                f"key_value_heads is {self.key_value_heads}, which {self.heads} heads cannot share equally."
            )
        if self.heads > 0 and self.hidden // self.heads % 2:
            problems.append(
                f"hidden is {self.hidden}: rotary positions need heads of even size, {self.heads} have odd."
            )
        if problems:
            raise InputError(problems)

    def config(self, tokenizer: Any) -> Any:
        """The configuration of transformers for a model with this tokenizer."""
        from transformers import LlamaConfig

        return LlamaConfig(
            **self.shared(tokenizer),
            num_key_value_heads=self.key_value_heads,
            intermediate_size=self.neurons,
            tie_word_embeddings=True,
            architectures=["LlamaForCausalLM"],
        )


#: By family.
SMALL: dict[str, type[SmallDecoder]] = {"opt": SmallOPT, "llama": SmallLlama}


def write_untrained(settings: SmallDecoder, text: str, folder: Path) -> nn.Module:
    """Train a tokenizer on the text, write it and the configuration, and return the model with random weights."""
    from transformers import AutoModelForCausalLM

    tokenizer = train_tokenizer([text], settings.vocabulary, settings.positions)
    tokenizer.save_pretrained(folder)
    config = settings.config(tokenizer)
    config.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model: nn.Module = AutoModelForCausalLM.from_config(config)
    return model


def train_small_decoder(
    settings: SmallDecoder, source: str, folder: Path, task: str = "wikitext2", **trainer: Any
) -> Any:
    """Train on the text of `source` and write a complete model into an empty folder.

    Args:
        source: file, folder or `embedded`.
        trainer: further settings of Lightning's Trainer.

    Returns:
        The trained model, in evaluation mode.

    Raises:
        InputError: sizes that do not fit, or no text.
    """
    from lightning import Trainer, seed_everything

    from splora.precision import resolve

    settings.check()
    if task not in TEXT_TASKS:
        raise InputError(f"task is {task!r}; allowed are {', '.join(TEXT_TASKS)}.")
    model: Any = write_untrained(settings, read_text(source, task, "train"), folder)
    data = TextDataModule(
        str(folder),
        source,
        source,
        task=task,
        seed=settings.seed,
        train_batch_size=settings.batch_size,
        max_train_examples=settings.steps * settings.batch_size,
    )
    options = OptimizerOptions(
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=max(1, settings.steps // 20),
    )
    seed_everything(settings.seed, verbose=False)
    fit = Trainer(
        max_steps=settings.steps,
        max_epochs=1,
        precision=resolve("auto"),
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        **trainer,
    )
    hooks = [] if isinstance(settings, SmallOPT) else add_dropout(model, settings.dropout)
    fit.fit(LanguageModule(model.train(), options), train_dataloaders=data.train_dataloader())
    if fit.interrupted:
        raise SystemExit(130)
    for hook in hooks:
        hook.remove()
    model.eval().cpu().save_pretrained(folder)
    return model


def add_dropout(model: nn.Module, probability: float) -> list[Any]:
    """Dropout in training where OPT has its own: behind the output projections. Returns the hooks, to be removed."""

    def drop(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return F.dropout(output, probability, module.training)

    outputs = [layer.linears[role] for layer in anatomy.layers(model) for role in ("attention_output", "ffn_out")]
    return [linear.register_forward_hook(drop) for linear in outputs]
