"""Peak memory of STAT over the model's own, on the shape of BERT-base with random weights and random samples.

    python benchmarks/stat_memory.py --samples 512 2048

Resident anonymous memory of this process, read every 5 ms, less what it holds when the model is loaded and the samples
are drawn. Prints one line per number of samples; each in a process of its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import threading
import time

import torch

from splora.memory import resident_bytes, return_free_memory

MIB = 2**20


def main() -> None:
    """Measure each number of samples."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--tokens", type=int, default=64, help="per sample")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--budget", type=float, default=0.5)
    parser.add_argument("--states", default="auto")
    parser.add_argument("--exact-paper", action="store_true")
    options = parser.parse_args()
    if len(options.samples) > 1:
        for samples in options.samples:
            given = [sys.executable, __file__, *sys.argv[1:], "--samples", str(samples)]
            subprocess.run(given, check=True)
        return
    measure(options)


def measure(options: argparse.Namespace) -> None:
    """Prune once, and print the peak."""
    from typing import Any

    from transformers import BertConfig, BertForSequenceClassification

    from splora.posttraining.core.budget import Costs
    from splora.posttraining.core.calibration import BATCH_TOKENS
    from splora.posttraining.core.precision import Precision
    from splora.posttraining.stat.method import StatOptions, prune_stat

    torch.manual_seed(0)
    (samples,) = options.samples
    model = BertForSequenceClassification(BertConfig(num_hidden_layers=options.layers)).eval()
    batches: Any = [
        {
            "input_ids": torch.randint(1, 30000, (len(rows), options.tokens)),
            "attention_mask": torch.ones(len(rows), options.tokens, dtype=torch.long),
        }
        for rows in torch.arange(samples).split(max(1, BATCH_TOKENS // options.tokens))
    ]
    precision = Precision.parse("auto")
    # Kernels and pools that any pass needs are no cost of the method.
    with torch.no_grad(), precision.forward(torch.device("cpu")):
        model(**batches[0])
    return_free_memory()  # what loading has left is no room for the method
    before = resident_bytes()
    watch = Watch()
    begin = time.perf_counter()
    for stage in prune_stat(
        model,
        batches,
        Costs.of(model, options.tokens),
        options.budget,
        StatOptions(exact_paper=options.exact_paper, storage=options.states),
        first_token_only=True,
        precision=precision,
        report=lambda stage, item, _: watch.mark(stage, item),
    ):
        last = stage
    seconds = time.perf_counter() - begin
    watch.stop()
    own = sum(parameter.numel() for parameter in last.model.parameters()) * 4 / MIB
    stages = ", ".join(f"{name} {(peak - before) / MIB:,.0f} ({item})" for name, (peak, item) in watch.peaks.items())
    print(
        f"{samples} samples of {options.tokens} tokens, MiB over the model's own: {stages}; "
        f"{own:,.0f} of them are the pruned model; {seconds:.1f} s"
    )


class Watch:
    """Reads resident memory on a thread of its own: by stage, the most, and what was done then."""

    def __init__(self) -> None:
        self.peaks: dict[str, tuple[int, str]] = {}
        self._now, self._running = ("start", ""), True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def mark(self, stage: str, item: str) -> None:
        """What is being done from now on."""
        self._now = stage, item

    def stop(self) -> None:
        """End reading."""
        self._running = False
        self._thread.join()

    def _run(self) -> None:
        while self._running:
            stage, item = self._now
            self.peaks[stage] = max(self.peaks.get(stage, (0, "")), (resident_bytes(), item))
            time.sleep(0.005)


if __name__ == "__main__":
    main()
