"""Fixtures that every room's tests share: folders, and tiny random models of every family and task head."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
import transformers
from torch import Tensor, nn

from splora import anatomy
from splora.export.plan import Plan
from tests.forks import QUICK_LATENCIES

ROOT = Path(__file__).resolve().parents[1]

# Programs that tests fork compute with one thread: what is compared with them does, too.
os.environ["OMP_NUM_THREADS"] = "1"
torch.set_num_threads(1)

# A busy machine says nothing of the code: how long making an example takes is no failure.
hypothesis.settings.register_profile("splora", suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("splora")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: two workers that take files in turn then end at about the same time."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session", autouse=True)
def quick_latencies() -> Iterator[None]:
    """In this process, as in those of `forks`."""
    from splora.training import serving

    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK_LATENCIES.items():
            patch.setattr(serving, name, value)
        yield


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and weights beside the project; the test is skipped where it is missing."""
    folder = ROOT.parent / "shared"
    if not (folder / "models").is_dir():
        pytest.skip("no real data: ../shared is not there")
    return folder


@pytest.fixture(scope="session")
def few_sentences(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SST-2's first 2,000 training and 200 evaluation rows: real ones, and a model is scored on them in a second."""
    folder = tmp_path_factory.mktemp("sst2")
    for name, rows in (("train.tsv", 2000), ("dev.tsv", 200)):
        with (shared / "data" / "sst2" / name).open(encoding="utf-8") as file:
            (folder / name).write_text("".join(islice(file, rows + 1)), encoding="utf-8")
    return folder


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """Runs the console command in this process; returns its exit status and what it printed."""

    from splora.scripts.cli import main

    def call(*arguments: object) -> tuple[int, str]:
        words = [str(word) for word in arguments]
        monkeypatch.setattr(sys, "argv", ["splora", *words])
        monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # LightningCLI's own calls
        capsys.readouterr()
        status = 0
        try:
            main(words)
        except SystemExit as ended:
            status = int(ended.code or 0)
        told = capsys.readouterr()
        return status, told.err + told.out

    return call


@pytest.fixture
def heard_signals() -> Iterator[None]:
    """SIGINT and SIGHUP arrive: a program started in the background ignores them, and what it starts inherits that."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {kind: signal.signal(kind, handler) for kind, handler in defaults.items()}
    yield
    for kind, handler in before.items():
        signal.signal(kind, handler)


LAYERS, HEADS, HEAD_SIZE, NEURONS = 3, 4, 6, 20
_SIZES = {"vocab_size": 60, "max_position_embeddings": 40}
_BERT = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 20, **_SIZES}
_TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
#: Three queries of two channels share a head of keys and values: four heads of six, as in the other families.
_LLAMA = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 12, "num_key_value_heads": 4, "head_dim": 2}
_LLAMA |= {"intermediate_size": 20, "pad_token_id": 0, **_SIZES}
_SETTINGS: dict[str, dict[str, Any]] = {
    "Bert": _BERT,
    "Roberta": _BERT | {"type_vocab_size": 1},
    "XLMRoberta": _BERT | {"type_vocab_size": 1},
    "MPNet": _BERT,
    "DebertaV2": _BERT
    | {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 4, "share_att_key": True},
    "Electra": _BERT | {"embedding_size": 16},
    "Llama": _LLAMA,
    "Gemma": _LLAMA,
    "Mistral": _LLAMA | {"sliding_window": 5},
    "Qwen2": _LLAMA,
    "Qwen3": _LLAMA,
    "DistilBert": {"dim": 24, "n_layers": 3, "n_heads": 4, "hidden_dim": 20, **_SIZES},
    "ModernBert": _BERT | {"local_attention": 6, **_TOKENS},
    "GPT2": {"n_embd": 24, "n_layer": 3, "n_head": 4, "n_inner": 20, "vocab_size": 60, "n_positions": 40, **_TOKENS},
    "OPT": {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 20, **_SIZES},
}
Tiny = Callable[..., Any]
Outputs = Callable[..., Tensor]


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """A random model by the name of its class, e.g. `BertForQuestionAnswering`; biases and norms are random too."""

    def build(name: str, **settings: Any) -> Any:
        family = name.removesuffix("LMHeadModel").removesuffix("DoubleHeadsModel").partition("For")[0]
        config = getattr(transformers, f"{family}Config")(**(_SETTINGS[family] | {"num_labels": 2} | settings))
        with torch.random.fork_rng():
            torch.manual_seed(7)
            model = getattr(transformers, name)(config)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.add_(0.2 * torch.randn_like(parameter))
        return model.eval()

    return build


@pytest.fixture(scope="session")
def outputs() -> Outputs:
    """Logits (start and end logits side by side) of a batch of three lengths, padded."""

    def run(model: Any, **options: Any) -> Tensor:
        pad = model.config.pad_token_id
        ids = torch.randint(5, 60, (3, 9), generator=torch.Generator().manual_seed(3))
        mask = torch.ones_like(ids)
        for row, length in enumerate((9, 6, 2)):
            ids[row, length:], mask[row, length:] = pad, 0
        with torch.no_grad():
            found = model(input_ids=ids, attention_mask=mask, **options)
        return found.logits if "logits" in found else torch.stack([found.start_logits, found.end_logits], dim=-1)

    return run


@pytest.fixture(scope="session")
def masked() -> Callable[[nn.Module, Plan], list[Any]]:
    """Hooks on a dense model that zero what a plan leaves out, before the two output projections of each layer."""

    def hook(model: nn.Module, plan: Plan) -> list[Any]:
        masks, handles = plan.masks(Plan.dense(model)), []
        for number, layer in enumerate(anatomy.layers(model)):
            channels = masks[f"layer.{number}.heads"].repeat_interleave(layer.head_size).float()
            neurons = masks[f"layer.{number}.neurons"].float()
            for role, mask in (("attention_output", channels), ("ffn_out", neurons)):
                multiply = lambda _, arguments, mask=mask: (arguments[0] * mask,)  # noqa: E731
                handles.append(layer.linears[role].register_forward_pre_hook(multiply))
        return handles

    return hook


_ALL_HEADS, _ALL_NEURONS = tuple(range(HEADS)), tuple(range(NEURONS))
_PLANS = {
    "mixed": Plan(((0, 2), (), (1,)), ((0, 3, 4, 19), (5,), ())),
    "first layer without heads": Plan(((), _ALL_HEADS, (0, 3)), ((), _ALL_NEURONS, (1, 7, 18))),
    "last layer without anything": Plan((_ALL_HEADS, (3,), ()), (_ALL_NEURONS, (0, 1, 2), ())),
    "nothing": Plan(((),) * LAYERS, ((),) * LAYERS),
    "everything": Plan((_ALL_HEADS,) * LAYERS, (_ALL_NEURONS,) * LAYERS),
}


@pytest.fixture(params=_PLANS)
def plan(request: pytest.FixtureRequest) -> Plan:
    """Plans with gaps, and with layers that keep none or all of their heads or neurons."""
    return _PLANS[request.param]


@pytest.fixture(scope="session")
def mixed() -> Plan:
    """A plan with gaps, with a layer without heads and one without neurons."""
    return _PLANS["mixed"]
