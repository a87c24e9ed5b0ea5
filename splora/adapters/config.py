"""What the settings of SPLoPA and SPLoRA have in common: which layers, which blocks, and what trains beside."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from peft.config import PeftConfig

from splora.errors import InputError, cut, nearest
from splora.masks.grid import BlockShape

logger = logging.getLogger(__name__)

#: Stands in `adapter_config.json`, where whoever meets PEFT's bare ``KeyError: 'SPLOPA'`` looks next.
NOTE = (
    "splora.load_adapter(folder) loads this adapter; PeftModel.from_pretrained does after `import splora.adapters`, "
    "without which PEFT does not know its type and ends in a KeyError."
)
#: Tasks whose wrapper in PEFT (0.21) takes ``token_type_ids`` and ``position_ids`` and does not pass them on.
_DROPS_INPUTS = ("QUESTION_ANS",)
#: Tasks whose head is new with each task, and so trained and saved beside the adapter.
_HEAD_TASKS = ("QUESTION_ANS", "SEQ_CLS", "TOKEN_CLS")
#: Options that say shapes by layer.
_BY_LAYER = ("block_shapes", "mask_shapes")
#: Prototypes or ranks of which no adapter has more: judged before anything of such sizes is built.
LARGEST = 2**16


@dataclass
class MaskedAdapterConfig(PeftConfig):
    """Settings of an adapter whose effective weight is W = expand(M) ⊙ (W0 + ΔW).

    With the task type ``QUESTION_ANS``, ``SEQ_CLS`` or ``TOKEN_CLS``, `modules_to_save` gains the task's head (and what
    lies on the way to it, such as a pooler) when the adapter is put on a model of a known family. A task type whose
    PEFT wrapper drops inputs is then forgotten, so that PEFT wraps the model in the plain `PeftModel`, which passes all
    of them on. The wrapper is chosen by this field alone, here and when the adapter is loaded.

    Args:
        block_shape: (p, q), rows × cols of a block. Where it does not divide a weight, as in a pruned model, the last
            blocks reach beyond it.
        block_shapes: another shape for some layers: suffix or regular expression of the layer's full name → (p, q).
            Where several match, the longest one counts.
        mask_shapes: the same for the mask's own blocks, which must divide the weight; where nothing is said they are
            the adapter's, or the whole weight where those do not divide it.
        target_modules: the linears to adapt: names or suffixes, one regular expression, or ``all-linear``.
        exclude_modules: names, suffixes or a regular expression of linears to leave alone.
        modules_to_save: modules trained and saved whole, one copy per adapter (task head, ``LayerNorm``).
        bias: ``all`` trains a copy of each adapted layer's bias, one per adapter; ``none`` leaves biases frozen.

    Raises:
        InputError: a value that is not allowed; all of them at once.
    """

    block_shape: BlockShape = field(default=(32, 32), metadata={"help": "Rows and cols of a block."})
    block_shapes: dict[str, BlockShape] = field(
        default_factory=dict, metadata={"help": "Suffix or regular expression of layers → block shape of theirs."}
    )
    mask_shapes: dict[str, BlockShape] = field(
        default_factory=dict, metadata={"help": "Suffix or regular expression of layers → shape of the mask's blocks."}
    )
    target_modules: list[str] | set[str] | str | None = field(
        default=None, metadata={"help": "Names, suffixes, a regular expression or 'all-linear'."}
    )
    exclude_modules: list[str] | set[str] | str | None = field(
        default=None, metadata={"help": "Names, suffixes or a regular expression of linears to leave alone."}
    )
    modules_to_save: list[str] | None = field(
        default=None, metadata={"help": "Modules trained and saved whole, one copy per adapter."}
    )
    bias: str = field(default="none", metadata={"help": "'all': a trained bias per adapter; 'none': frozen biases."})
    note: str = field(default=NOTE, metadata={"help": "Says in the file how it is loaded; PEFT's own error does not."})

    def __post_init__(self) -> None:
        super().__post_init__()
        task: str | None = getattr(self, "task_type", None)
        #: Whether the task's head joins `modules_to_save`; that of a file was named there when it was saved.
        self.trains_head = task in _HEAD_TASKS
        #: Whether the file, if it comes from one, was written by a release that trained through PEFT's wrapper.
        self.lacked_inputs = task in _DROPS_INPUTS
        if self.lacked_inputs:
            self.task_type = None
        problems = list(self._other_kinds())
        if problems:
            raise InputError(problems)
        if isinstance(self.target_modules, list | tuple):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list | tuple):
            self.exclude_modules = set(self.exclude_modules)
        if self.modules_to_save is not None:
            self.modules_to_save = list(self.modules_to_save)  # PEFT appends the task's head to this very list
        problems = list(self._problems())
        if problems:
            raise InputError(problems)
        self.block_shape = _as_shape(self.block_shape)
        for option in _BY_LAYER:
            shapes: dict[str, BlockShape] = getattr(self, option)
            setattr(self, option, {pattern: _as_shape(shape) for pattern, shape in shapes.items()})

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str, *args: Any, **kwargs: Any) -> Any:
        """The settings of a saved adapter; a notice where it was trained without some of its model's inputs."""
        config = super().from_pretrained(pretrained_model_name_or_path, *args, **kwargs)
        config.trains_head = False
        if config.lacked_inputs:
            logger.warning(
                "%s: this adapter was trained without segments: PEFT's wrapper for questions passes neither "
                "token_type_ids nor position_ids on. Now they reach the model, so scores differ from those measured "
                "then; train it again for the right ones, or leave token_type_ids out to repeat the old ones.",
                pretrained_model_name_or_path,
            )
        return config

    def _other_kinds(self) -> Iterable[str]:
        """A sentence for each option that a file gives as a value of another kind."""
        name = type(self).__name__
        for option in ("target_modules", "exclude_modules", "modules_to_save"):
            value: Any = getattr(self, option)
            one = isinstance(value, str) and option != "modules_to_save"
            several = isinstance(value, list | tuple | set) and all(isinstance(module, str) for module in value)
            if value is not None and not one and not several:
                yield f"{name}: {option} is {cut(value)}; names of modules are needed."
            if one and (wrong := _irregular(value)):
                yield f"{name}: {option} is {cut(value)}, which is no regular expression ({wrong})."
        for option in _BY_LAYER:
            value = getattr(self, option)
            if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
                yield f"{name}: {option} is {cut(value)}; block shapes by layer are needed."

    def _problems(self) -> Iterable[str]:
        name = type(self).__name__
        if self.bias not in ("none", "all"):
            close = nearest(cut(self.bias), ("none", "all"))
            yield f"{name}: bias is {cut(self.bias)}; allowed are none, all{close}."
        shapes = {"block_shape": self.block_shape}
        for option in _BY_LAYER:
            by_layer: dict[str, BlockShape] = getattr(self, option)
            shapes |= {f"{option}[{pattern!r}]": shape for pattern, shape in by_layer.items()}
        for option, shape in shapes.items():
            if not (
                isinstance(shape, Sequence)
                and len(shape) == 2
                and all(isinstance(size, int) and not isinstance(size, bool) and 0 < size <= LARGEST for size in shape)
            ):
                yield (
                    f"{name}: {option} is {cut(shape)}; two whole numbers above 0 are needed, rows and cols, up to "
                    f"{LARGEST:,}."
                )
        for option in _BY_LAYER:
            for pattern in getattr(self, option):
                if wrong := _irregular(pattern):
                    yield f"{name}: {option} has the key {cut(pattern)}, which is no regular expression ({wrong})."

    def block_shape_of(self, layer: str) -> BlockShape:
        """The block shape of the layer of this full name. The order of `block_shapes` is no matter: files sort it."""
        return _of_layer(self.block_shapes, layer) or self.block_shape

    def mask_shape_of(self, layer: str, weight: BlockShape) -> BlockShape:
        """The shape of the mask's blocks in a layer whose weight is (out, in)."""
        given = _of_layer(self.mask_shapes, layer)
        if given is not None:
            return given
        p, q = self.block_shape_of(layer)
        return weight if weight[0] % p or weight[1] % q else (p, q)


def _of_layer(shapes: dict[str, BlockShape], layer: str) -> BlockShape | None:
    """The shape whose pattern fits a layer best."""
    matching = [
        pattern
        for pattern in shapes
        if layer == pattern or layer.endswith(f".{pattern}") or re.fullmatch(pattern, layer)
    ]
    return shapes[max(matching, key=lambda p: (len(p), p))] if matching else None


def positive_whole(config: object, *options: str) -> Iterable[str]:
    """A sentence for each of the named options of `config` that is no whole number above 0."""
    for option in options:
        value: Any = getattr(config, option)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= LARGEST:
            yield (
                f"{type(config).__name__}: {option} is {cut(value)}; a whole number above 0 and up to {LARGEST:,} is "
                f"needed."
            )


def positive(config: object, *options: str) -> Iterable[str]:
    """A sentence for each of the named options of `config` that is no finite number above 0."""
    for option in options:
        value: Any = getattr(config, option)
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= LARGEST:
            yield f"{type(config).__name__}: {option} is {cut(value)}; a number above 0 is needed."


def _irregular(pattern: str) -> str | None:
    """What is wrong with a regular expression."""
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        return str(error) or type(error).__name__
    return None


def _as_shape(shape: Sequence[int]) -> BlockShape:
    return int(shape[0]), int(shape[1])
