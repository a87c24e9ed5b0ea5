"""Asks a fine-tuned classifier about a few training examples before anything is built on its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from splora.tasks.chance import check_sense
from splora.tasks.data_module import TaskDataModule
from splora.tasks.features import Collator
from splora.tasks.glue_tasks import TASKS

#: Examples that are asked about, in batches of so many.
EXAMPLES, BATCH = 128, 32


@torch.no_grad()
def ask(name: str, answer: Callable[[dict[str, Tensor]], Mapping[str, Tensor]], data: TaskDataModule) -> None:
    """Refuse a classifier whose answers are clearly worse than chance; of questions about texts nothing is asked.

    Args:
        name: the model's, for the message.
        answer: gives the logits of a training batch.

    Raises:
        InputError: its outputs stand in another order than was understood (see `chance.check_sense`).
    """
    if data.task not in TASKS or not data.labelled:
        return
    features = data.features("train")
    rows = np.random.default_rng(data.seed).permutation(len(features))[:EXAMPLES]
    collator = Collator(features, data.pad_token_id, data.width)
    batches = [collator(rows[start : start + BATCH].tolist()) for start in range(0, len(rows), BATCH)]
    logits = np.concatenate([answer(batch)["logits"].float().numpy() for batch in batches])
    labels = np.concatenate([batch["labels"].numpy() for batch in batches])
    check_sense(name, logits, labels, getattr(data, "label2id", None) or {}, TASKS[data.task])
