"""What a person asks of a command that works on a checkpoint, and what can be found wrong with it beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from splora.errors import InputError, problems_of
from splora.export.storage import DTYPES, weight_digest
from splora.files import refuse_link, remove_leftovers
from splora.json_values import one_line, read_object
from splora.locks import claiming
from splora.posttraining.core.budget import Budget
from splora.posttraining.core.choices import PRECISIONS
from splora.posttraining.core.compute import check_compute
from splora.posttraining.core.method import find_method
from splora.posttraining.core.options import at_least, option, wrong_values
from splora.run_files import RESULT as RESULT


@dataclass(frozen=True)
class Request:
    """What pruning, quantization and healing have in common; what else a field means is its option's help.

    Attributes:
        method: by its name in results.
        model: folder or hub name of the checkpoint.
        task: by the program's own name.
        data: folder with the task's data, or None for the hub.
        budget: what the result may cost.
        output: folder of the result.
        tables: files of the attention's and the feed-forward part's latencies, for a latency budget.
        columns: names of the data's columns, where they are not recognized.
        offload: leave the model in its files, and hold one layer at a time; its latency is not measured then.
        summary: text file that gets one line; None: none.
        options: of the method, by name.
    """

    method: str
    model: str
    task: str
    data: str | None
    budget: Budget
    output: Path
    samples: int = option(2048, "training examples to calibrate with", "--num_samples", **at_least(1))
    seed: int = option(0, "of the draw of these examples", "--seed")
    tokens: int | None = option(
        None,
        "sequence length that MACs are counted at (default: the examples' average)",
        "--seq_len",
        **at_least(1),
    )
    max_seq_length: int | None = option(
        None,
        "tokens per example at most (default: 384 for questions, the model's positions for a text, at most 2,048, and "
        "128 else)",
        "--max_seq_length",
        **at_least(8),
    )
    doc_stride: int = option(128, "tokens that windows of a long context share", "--doc_stride")
    precision: str = option("auto", "to compute in; auto is bf16 where that is fast", "--precision", allowed=PRECISIONS)
    device: str = option("auto", "auto is a GPU where there is one", "--device", shown="auto|cpu|cuda|cuda:N")
    threads: int | None = option(None, "processor threads (default: torch's choice)", "--threads")
    tables: tuple[str, str] | None = None
    latency_batch_size: int | None = option(
        None,
        "sequences per batch when latency is measured (default: 32, or that of the tables)",
        "--latency_batch_size",
        **at_least(1),
    )
    latency_tokens: int | None = option(
        None,
        "tokens per sequence then (default: max_seq_length, or that of the tables)",
        "--latency_seq_len",
        **at_least(1),
    )
    dtype: str = option(
        "auto",
        "what weights are stored in, if they are not quantized; auto: what they came in",
        "--dtype",
        allowed=DTYPES,
    )
    columns: dict[str, str] = field(default_factory=dict)
    labelled: bool = option(
        True,
        "training data have no labels: none are read, and healing learns from the teacher alone",
        "--no_labels",
    )
    offload: bool = option(
        False,
        "for language models larger than memory: weights are read from safetensors files and written layer by layer, "
        "hidden states lie in files, one layer is held at a time; latency is not measured",
        "--offload",
    )
    force: bool = option(False, "replace another result in the output folder", "--force")
    summary: Path | None = None
    options: dict[str, Any] = field(default_factory=dict)

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
            **self.options,
        }

    def check(self) -> None:
        """Find what is wrong with the request itself; loads no model and no data.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = wrong_values(self, as_flags=True)
        if self.offload and (self.latency_batch_size or self.latency_tokens):
            problems.append("--offload measures no latency; leave out --latency_batch_size and --latency_seq_len.")
        problems += problems_of(self._check_method, self._check_output, self._check_compute)
        if problems:
            raise InputError(dict.fromkeys(problems))

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Keep other commands from the output folder while the block runs, and clear what killed ones left beside it.

        Raises:
            InputError: another command is writing there, or nothing can be written there.
        """
        output = self.output.resolve()
        message = f"--output: another command is just making {self.output}"
        with claiming(output.with_name(f".{output.name}.lock"), message):
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

    def _check_method(self) -> None:
        """Of what is no method of pruning, nothing is known here."""


@dataclass(frozen=True)
class PruneRequest(Request):
    """One pruning by a registered method."""

    def _check_method(self) -> None:
        find_method(self.method).check_request(self)
