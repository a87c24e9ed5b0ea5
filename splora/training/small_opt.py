"""A small OPT that the project trains itself, in minutes on a processor: real language to prune and to quantize."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from splora.errors import InputError
from splora.tasks.byte_pairs import BYTES, SPECIAL, train_tokenizer
from splora.tasks.language_modelling import TextDataModule
from splora.tasks.text_sources import TEXT_TASKS, read_text
from splora.training.language_model import LanguageModule
from splora.training.options import OptimizerOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SmallOPT:
    """Sizes and training of the model. The standard ones take about eight minutes on one core with bf16.

    Attributes:
        vocabulary: tokens at most.
        positions: tokens per window.
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
        if self.heads > 0 and self.hidden % self.heads:
            problems.append(f"hidden is {self.hidden}, which {self.heads} heads cannot share equally.")
        if problems:
            raise InputError(problems)


def write_untrained(settings: SmallOPT, text: str, folder: Path) -> nn.Module:
    """Train a tokenizer on the text, write it and the configuration, and return the model with random weights."""
    from transformers import OPTConfig, OPTForCausalLM

    tokenizer = train_tokenizer([text], settings.vocabulary, settings.positions)
    tokenizer.save_pretrained(folder)
    config = OPTConfig(
        vocab_size=math.ceil(len(tokenizer) / 8) * 8,
        hidden_size=settings.hidden,
        word_embed_proj_dim=settings.hidden,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        ffn_dim=settings.neurons,
        max_position_embeddings=settings.positions,
        dropout=settings.dropout,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        architectures=["OPTForCausalLM"],
    )
    config.save_pretrained(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model: nn.Module = OPTForCausalLM(config)
    return model


def train_small_opt(settings: SmallOPT, source: str, folder: Path, task: str = "wikitext2", **trainer: Any) -> Any:
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
    fit.fit(LanguageModule(model.train(), options), train_dataloaders=data.train_dataloader())
    if fit.interrupted:
        raise SystemExit(130)
    model.eval().cpu().save_pretrained(folder)
    return model
