"""A post-training method as one object, and all that there are. Imports no torch.

A folder of `splora/posttraining/` whose `__init__.py` defines `METHOD` is a method: its command, its YAML,
`splora.prune`, rows that prune first, results and reports know it from there.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar

from splora.errors import InputError, nearest
from splora.posttraining.core.budget import METRICS
from splora.posttraining.core.options import Options, checked
from splora.tasks.registry import REGISTRY
from splora.tasks.sources import ALL_TASKS

if TYPE_CHECKING:
    from splora.posttraining.core.pruning import Pruning
    from splora.posttraining.core.request import Request
    from splora.posttraining.core.stages import Stage

#: The method where none is named, and the one that is listed first.
DEFAULT = "stat"


class Method(ABC):
    """One way of pruning without training.

    Attributes:
        name: in commands, results and rows.
        title: in reports and sentences.
        help: what it does, in a line.
        samples: training examples that it looks at by default.
        options: dataclass of its options.
        budgets: what a budget may count: `mac`, `latency`, `blocks`.
        tasks: what its models may be for.
        offloads: whether it goes layer by layer over a model that stays in its files.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    help: ClassVar[str]
    samples: ClassVar[int]
    options: ClassVar[type[Options]]
    budgets: ClassVar[tuple[str, ...]] = ("mac",)
    tasks: ClassVar[tuple[str, ...]] = ALL_TASKS
    offloads: ClassVar[bool] = False

    @abstractmethod
    def stages(self, pruning: Pruning, options: Any) -> Iterator[Stage]:
        """The smaller model after each stage; the last one is marked so, and `pruning.model` stays as it is.

        Args:
            options: of type `self.options`.

        Raises:
            InputError: the model, its samples or the budget are not for this method.
        """

    @property
    def is_command(self) -> bool:
        """Whether it takes budgets of `splora prune` and `splora.prune`: it leaves a smaller model."""
        return bool(set(self.budgets) & set(METRICS))

    def check(self, pruning: Pruning) -> None:
        """Find what is wrong with model and samples before anything costly.

        Raises:
            InputError: they are not for this method.
        """
        return None

    def batch_size(self, options: Any) -> int | None:
        """Samples of a calibration batch; None: as many as fit, of similar length."""
        return None

    def problems(self, request: Request) -> list[str]:
        """What else is wrong with a request, a sentence each."""
        return []

    def row_options(self, **row: Any) -> Any:
        """Its options in a row that prunes first.

        Args:
            row: `blocks`, shapes in attention and feed-forward weights; `each_weight`, see `prune_blocks`.
        """
        return self.options()

    def check_request(self, request: Request) -> None:
        """Find what is wrong with a request before anything is loaded.

        Raises:
            InputError: one sentence for each finding.
        """
        problems = list(self.problems(request))
        counts = [other.title for other in methods().values() if "latency" in other.budgets]
        if request.budget.metric not in self.budgets:
            problems.append(
                f"{self.title} counts MACs: give a budget such as mac=0.5; latency budgets are for "
                f"{' and '.join(counts)} pruning."
            )
        elif request.budget.metric == "latency" and request.tables is None:
            problems.append(
                "A latency budget needs measured tables: give --mha_lut and --ffn_lut; "
                "scripts/generate_lut.py measures them."
            )
        if request.tables is not None and "latency" not in self.budgets:
            problems.append(
                f"--mha_lut and --ffn_lut are for latency budgets, which {' and '.join(counts)} pruning has; "
                f"{self.title} counts MACs."
            )
        others = [each for each in commands().values() if request.task in each.tasks]
        if others and self not in others:
            ways = " or ".join(f"{each.title} (splora prune {each.name})" for each in others)
            problems.append(f"{self.title} pruning is not for {request.task}; its models are pruned by {ways}.")
        if request.offload and not (self.offloads and REGISTRY[request.task].outputs == "losses"):
            texts = ", ".join(name for name, task in REGISTRY.items() if task.outputs == "losses")
            able = " or ".join(each.title for each in commands().values() if each.offloads)
            what = f"models for {request.task}" if self.offloads else f"{self.title} pruning"
            problems.append(
                f"--offload is for language models that {able} prunes on a text ({texts}), and not for {what}; leave "
                f"it out."
            )
        try:
            checked(self.options, request.options)
        except InputError as error:
            problems += error.problems
        if problems:
            raise InputError(problems)


@cache
def methods() -> dict[str, Method]:
    """All methods by name: the default first, then those of `splora prune`, then others, each by name."""
    from splora import posttraining

    registered = []
    for each in pkgutil.iter_modules(posttraining.__path__):
        if each.ispkg:
            method = getattr(import_module(f"{posttraining.__name__}.{each.name}"), "METHOD", None)
            registered += [] if method is None else [method]
    registered.sort(key=lambda method: (method.name != DEFAULT, not method.is_command, method.name))
    return {method.name: method for method in registered}


def commands() -> dict[str, Method]:
    """The methods of `splora prune` and `splora.prune`."""
    return {name: method for name, method in methods().items() if method.is_command}


def find_method(name: str) -> Method:
    """The method of this name.

    Raises:
        InputError: there is none.
    """
    if name not in methods():
        raise InputError(
            f"method: {name!r} is none; allowed are {', '.join(commands())}{nearest(name, commands()) or '.'}"
        )
    return methods()[name]
