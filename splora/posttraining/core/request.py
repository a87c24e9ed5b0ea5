"""What a person asks of `splora prune`, whatever the method, and what can be found wrong with it beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splora.errors import InputError, problems_of
from splora.export.storage import check_dtype, weight_digest
from splora.files import refuse_link, remove_leftovers
from splora.json_values import one_line, read_object
from splora.locks import claiming
from splora.posttraining.core.budget import Budget
from splora.posttraining.core.compute import check_compute
from splora.run_files import RESULT as RESULT
from splora.tasks.registry import REGISTRY
from splora.tasks.text_sources import TEXT_TASKS


@dataclass(frozen=True)
class PruneRequest:
    """One pruning.

    Attributes:
        method: `fisher` or `stat`.
        model: folder or hub name of the fine-tuned checkpoint.
        task: by the program's own name.
        data: folder with the task's data, or None for the hub.
        budget: what the result may cost.
        output: folder of the result.
        samples: training examples to calibrate with.
        seed: of the draw of samples.
        tokens: sequence length that MACs are counted at; None: the samples' average.
        max_seq_length: tokens per example at most; None: 384 for questions, 128 else.
        doc_stride: tokens that neighbouring windows of a long context share.
        precision: auto, fp32 or bf16.
        device: `cpu`, `cuda`, `cuda:1`, or `auto`.
        threads: processor threads; None: torch's choice.
        tables: files of the attention's and the feed-forward part's latencies, for a latency budget.
        latency_batch_size: sequences per batch when latency is measured.
        latency_tokens: tokens per sequence then; None: `max_seq_length`.
        dtype: what the result's weights are stored in, one of `storage.DTYPES`.
        columns: names of the data's columns, where they are not recognized.
        labelled: whether training examples have labels.
        offload: leave the model in its files, and hold one layer at a time; its latency is not measured then.
        force: replace the result of another request.
        summary: text file that gets one line; None: none.
        choices: of the method, by name.
    """

    method: str
    model: str
    task: str
    data: str | None
    budget: Budget
    output: Path
    samples: int = 2048
    seed: int = 0
    tokens: int | None = None
    max_seq_length: int | None = None
    doc_stride: int = 128
    precision: str = "auto"
    device: str = "auto"
    threads: int | None = None
    tables: tuple[str, str] | None = None
    latency_batch_size: int | None = None
    latency_tokens: int | None = None
    dtype: str = "auto"
    columns: dict[str, str] = field(default_factory=dict)
    labelled: bool = True
    offload: bool = False
    force: bool = False
    summary: Path | None = None
    choices: dict[str, Any] = field(default_factory=dict)

    def settings(self) -> dict[str, Any]:
        """What decides the result, as JSON values."""
        return {
            "method": self.method,
            "model": self.model,
            "weights": weight_digest(self.model),
            "task": self.task,
            "data": self.data,
            "budget": f"{self.budget.metric}={self.budget.fraction:g}",
            "samples": self.samples,
            "seed": self.seed,
            "tokens": self.tokens,
            "max_seq_length": self.max_seq_length,
            "doc_stride": self.doc_stride,
            "precision": self.precision,
            "device": self.device,
            "tables": list(self.tables) if self.tables else None,
            "dtype": self.dtype,
            "columns": self.columns,
            **({} if self.labelled else {"labelled": False}),
            **self.choices,
        }

    def check(self) -> None:
        """Find what is wrong with the request itself; loads no model and no data.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = [
            f"{option} is {value}; it must be {least} or larger."
            for option, value, least in (
                ("--num_samples", self.samples, 1),
                ("--seq_len", self.tokens, 1),
                ("--max_seq_length", self.max_seq_length, 8),
                ("--latency_batch_size", self.latency_batch_size, 1),
                ("--latency_seq_len", self.latency_tokens, 1),
            )
            if value is not None and value < least
        ]
        if self.budget.metric == "latency" and self.tables is None:
            problems.append(
                "A latency budget needs measured tables: give --mha_lut and --ffn_lut; "
                "scripts/generate_lut.py measures them."
            )
        if self.choices.get("labels") == "data" and self.task in REGISTRY and REGISTRY[self.task].causal:
            problems.append(f"--fisher_labels is data, and {self.task} has no labels; model needs none.")
        if self.offload and (self.method != "stat" or self.task not in TEXT_TASKS):
            what = "Fisher pruning" if self.method == "fisher" else f"models for {self.task}"
            problems.append(
                f"--offload is for language models that STAT prunes on a text ({', '.join(TEXT_TASKS)}), and not for "
                f"{what}; leave it out."
            )
        if self.offload and (self.latency_batch_size or self.latency_tokens):
            problems.append("--offload measures no latency; leave out --latency_batch_size and --latency_seq_len.")
        problems += problems_of(self._check_output, self._check_compute, lambda: check_dtype(self.dtype))
        if problems:
            raise InputError(problems)

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other commands from the output folder while the block runs, and clear what killed ones left beside it.

        Raises:
            InputError: another command is writing there, or nothing can be written there.
        """
        output = self.output.resolve()
        told = f"--output: another command is just making {self.output}"
        with claiming(output.with_name(f".{output.name}.lock"), told):
            remove_leftovers(output.parent, files=False)
            yield

    def difference(self) -> str | None:
        """In what the result in the output folder was asked for otherwise: `bits 4, here 3`; empty where in nothing.

        Returns:
            None: the folder holds no result.
        """
        try:
            before = (read_object(self.output / RESULT) or {}).get("settings")
        except ValueError:
            return None
        if not isinstance(before, dict):
            return None
        # Results of before do not tell the weights that they were made from.
        known = {"weights": None, **before}
        now = {name: value for name, value in self.settings().items() if name != "weights" or known[name] is not None}
        differing = ((name, value) for name, value in now.items() if before.get(name) != value)
        return next((f"{name} {one_line(repr(before.get(name)), 80)}, here {value!r}" for name, value in differing), "")

    def _check_output(self) -> None:
        """Never replace what another request, or something else, has left."""
        refuse_link(self.output)
        if Path.cwd().is_relative_to(self.output.resolve()):
            raise InputError(f"--output: {self.output} is the folder that this command runs in; give one below it.")
        if not self.output.exists():
            return
        if not self.output.is_dir():
            raise InputError(f"--output: {self.output} is a file; give a folder.")
        if not any(self.output.iterdir()):
            return
        difference = self.difference()
        if difference is None:
            raise InputError(f"--output: {self.output} holds other files; give a new or empty folder.")
        if difference and not self.force:
            raise InputError(
                f"--output: {self.output} holds another result ({difference}); give another folder, or --force to "
                f"replace it."
            )

    def _check_compute(self) -> None:
        check_compute(device=self.device, precision=self.precision, threads=self.threads, seed=self.seed)
