"""What the report knows of a run. Whatever an unfinished or foreign run may lack may be None or empty."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from splora.masks.criteria import label_of
from splora.posttraining.core.method import commands
from splora.report.log import Log
from splora.tasks.registry import REGISTRY

#: States in the order in which a reader wants to see them.
STATES = ("failed", "unreadable", "interrupted", "unfinished", "running", "queued", "finished")
#: Metrics of which less is better.
LOWER_IS_BETTER = ("perplexity",)


@dataclass(frozen=True)
class Environment:
    """What a run ran on. Texts, empty where it is not known."""

    versions: tuple[tuple[str, str], ...] = ()
    precision: str = ""
    device: str = ""
    devices: str = ""
    threads: str = ""
    host: str = ""


@dataclass(frozen=True)
class Run:
    """One training run.

    Attributes:
        folder: where it is.
        name: its path below the folder that the report is of.
        label: its EXP ID, or its folder's name.
        state: one of `STATES`.
        reason: why it failed, or what else there is to say of its state.
        metrics: measured scores; `reported`: the published ones by the same names.
        density: remaining encoder weights, percent; `reported_density`: the published ones.
        learned: learned weights in percent of all encoder weights.
        settings: of its specification, those that are not the default.
        log: thinned curves.
        command: what repeats it; `derived`: whether the run did not say so itself.
        data: model it starts from, training file, evaluation file.
        blocks: sides of a block of attention and feed-forward weights.
        macs: MACs that are left of the dense model's, percent; `parameters`: of the dense model and of what is served.
        latency: milliseconds of the dense model and of what is served; `latency_of`: on what batch and machine.
    """

    folder: Path
    name: str
    label: str
    state: str
    sheet: str = ""
    title: str = ""
    task: str = ""
    method: str = ""
    adapter: str = ""
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    reported: dict[str, float] = field(default_factory=dict)
    density: float | None = None
    reported_density: float | None = None
    learned: float | None = None
    stored_bytes: int | None = None
    seconds: float | None = None
    peak_memory_bytes: int | None = None
    step: int | None = None
    steps: int | None = None
    seconds_left: float | None = None
    heartbeat: str = ""
    seed: str = ""
    environment: Environment = Environment()
    settings: dict[str, str] = field(default_factory=dict)
    data: tuple[str, str, str] = ("", "", "")
    blocks: tuple[tuple[int, int], tuple[int, int]] | None = None
    macs: float | None = None
    parameters: tuple[int, int] | None = None
    latency: tuple[float, float] | None = None
    latency_of: str = ""
    log: Log = field(default_factory=lambda: Log({}))
    log_file: str = ""
    command: str = ""
    derived: bool = False

    @property
    def finished(self) -> bool:
        """Whether it has a result."""
        return self.state == "finished"


@dataclass(frozen=True)
class Pruned:
    """One pruning after training.

    Attributes:
        dense, pruned: the task's metric before and after; `stages`: after each step.
        macs: share of the encoder's MACs that is left, percent.
        latency: median milliseconds of the dense and of the pruned model, with the batch's shape.
        heads, neurons: for each layer, which stay (True); empty where the folder has no plan.
    """

    folder: Path
    name: str
    label: str
    method: str
    model: str
    task: str
    metric: str
    dense: float
    pruned: float
    stages: dict[str, float] = field(default_factory=dict)
    budget: str = ""
    macs: float | None = None
    latency: tuple[float, float] | None = None
    latency_of: str = ""
    parameters: tuple[int, int] | None = None
    heads: tuple[tuple[bool, ...], ...] = ()
    neurons: tuple[float, ...] = ()
    seconds: float | None = None
    samples: int | None = None
    seed: str = ""
    environment: Environment = Environment()
    command: str = ""
    derived: bool = False


@dataclass(frozen=True)
class Collection:
    """All that was found below a folder, and a sentence on everything that could not be read."""

    root: Path
    runs: tuple[Run, ...]
    pruned: tuple[Pruned, ...]
    notices: tuple[str, ...]


def primary_metric(task: str) -> str:
    """What a task is judged by."""
    return REGISTRY[task].metrics[0] if task in REGISTRY else "f1"


def metric_name(metric: str) -> str:
    """A metric as a heading."""
    return {"f1": "F1", "exact_match": "exact match", "macs": "MACs"}.get(metric, metric.replace("_", " "))


def method_name(method: str) -> str:
    """A method as a heading; that of another version by its own name."""
    titles = {"heal": "healed"} | {name: each.title for name, each in commands().items()}
    return titles.get(method, label_of(method or "unknown"))
