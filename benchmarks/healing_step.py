"""A healing step against what it is made of: a plain step of the same pruned model, and the teacher's forward pass.

    python benchmarks/healing_step.py [--repeats 7] [--threads 2] [--adapter none|splopa|lora]

A BERT of 6 layers, 384 wide, cut to half of its heads and neurons, learns from its dense self: logits and hidden
states. Batch 8 × 256 tokens, AdamW, fp32, dropout 0. The three take turns in one process, and medians are compared.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import BertConfig, BertForQuestionAnswering

from splora.export.cut import cut
from splora.export.plan import Plan
from splora.training.losses import distillation_loss, states_loss, task_loss
from splora.training.model import prepare
from splora.training.optimizer import make_optimizer
from splora.training.options import AdapterOptions, OptimizerOptions, PruningOptions
from splora.training.signals import signals

BATCH, TOKENS, TARGET = 8, 256, 1.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--adapter", default="none", choices=("none", "splopa", "lora"))
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    sizes = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    config = BertConfig(**sizes, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    teacher = BertForQuestionAnswering(config).eval().requires_grad_(False)
    smaller = cut(teacher, Plan((tuple(range(6)),) * 6, (tuple(range(768)),) * 6))
    student, _ = prepare(smaller.requires_grad_(True).train(), AdapterOptions(kind=options.adapter), PruningOptions())
    optimizer, _ = make_optimizer(student, OptimizerOptions(), 0, 1000)
    ids = torch.randint(0, 30000, (BATCH, TOKENS))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    labels = {name: torch.randint(0, TOKENS, (BATCH,)) for name in ("start_positions", "end_positions")}
    weights = torch.ones(6)

    def step(loss: Tensor) -> None:
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def plain() -> None:
        step(task_loss(signals(student, inputs, hidden=False, attention=False).logits, labels))

    @torch.no_grad()
    def taught() -> None:
        signals(teacher, inputs, hidden=False, attention=False)

    def healing() -> None:
        with torch.no_grad():
            wanted = signals(teacher, inputs, hidden=True, attention=False)
        found = signals(student, inputs, hidden=True, attention=False)
        loss = 0.1 * task_loss(found.logits, labels) + 0.5 * distillation_loss(found.logits, wanted.logits, 2.0)
        step(loss + states_loss(found.hidden, wanted.hidden, inputs["attention_mask"], weights))

    calls: dict[str, Callable[[], None]] = {"plain step": plain, "teacher's forward": taught, "healing step": healing}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(options.repeats + 1):
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            if number:  # the first round warms up
                seconds[name].append(time.perf_counter() - begin)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    threads = torch.get_num_threads()
    print(f"batch {BATCH} × {TOKENS}, {options.adapter}, fp32, {threads} threads, median of {options.repeats}")
    for name, median in medians.items():
        print(f"  {name:<18} {median * 1e3:8.1f} ms")
    ratio = medians["healing step"] / (medians["plain step"] + medians["teacher's forward"])
    print(f"  healing against both {ratio:.2f} × (target ≤ {TARGET} ×): {'reached' if ratio <= TARGET else 'missed'}")


if __name__ == "__main__":
    main()
