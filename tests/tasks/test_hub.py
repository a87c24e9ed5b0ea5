"""What a user hears where a name, a network or a vocabulary is missing."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from splora.checkpoints.checkpoint import load_checkpoint
from splora.errors import InputError
from splora.export.folder import load_pruned
from splora.tasks import hub
from splora.tasks.embedded.model import write_embedded_model
from splora.training.model import load_base
from splora.training.preflight import check_model
from splora.training.specification import RunSpecification


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection is refused, and at once."""

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise OSError("no network")

    monkeypatch.setattr("socket.create_connection", refuse)
    monkeypatch.setattr("urllib.request.getproxies", dict)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("load", [hub.load_tokenizer, hub.load_config])
def test_a_hub_name_without_a_network(load: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        load("nobody/no-such-model", str(tmp_path))
    assert len(raised.value.problems) == 1
    assert "nobody/no-such-model: there is no such folder" in str(raised.value)
    assert "there is no network and no copy in the cache); pass a model's folder, or 'embedded'." in str(raised.value)


@pytest.mark.usefixtures("no_network")
def test_a_data_set_without_a_network(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nobody/none \(mnli\): .* no network .* --train-file and --predict-file"):
        hub.load_dataset("nobody/none", "mnli", "train", str(tmp_path))


@pytest.mark.usefixtures("no_network")
def test_the_libraries_are_switched_back() -> None:
    import datasets
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    with pytest.raises(InputError):
        hub.load_config("nobody/no-such-model")
    after = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    assert after == before


def test_the_hubs_own_words_reach_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "reachable", lambda: True)
    with pytest.raises(InputError, match=r"bad name!!: there is no such folder, .*Repo id must use"):
        hub.load_config("bad name!!")


def test_proxies_and_offline_switch_decide_without_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr("socket.create_connection", lambda *_, **__: pytest.fail("no connection is needed"))
    monkeypatch.setattr("urllib.request.getproxies", lambda: {"https": "http://proxy:3128"})
    monkeypatch.setattr(constants, "ENDPOINT", "https://huggingface.co")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert hub.reachable()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not hub.reachable()


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "a/b/c", "nowhere/"])
def test_paths_are_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "reachable", lambda: pytest.fail("a path is no hub name"))
    with pytest.raises(InputError, match="there is no such folder; pass a model's folder, a hub name, or 'embedded'"):
        hub.load_tokenizer(name)


def test_folders_that_are_no_models(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"this folder holds no model; it has no config\.json"):
        hub.load_config(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(InputError, match=r"has no vocabulary \(tokenizer\.json or vocab\.txt\).*fetch\.py"):
        hub.load_tokenizer(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config\.json: is not JSON"):
        hub.load_config(str(tmp_path))


def test_a_folder_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    monkeypatch.setattr(hub, "reachable", lambda: pytest.fail("a folder is here"))
    write_embedded_model(tmp_path)
    assert hub.load_tokenizer(str(tmp_path)).get_vocab() == hub.load_tokenizer("embedded").get_vocab()
    assert hub.load_config(str(tmp_path)).hidden_size == hub.load_config("embedded").hidden_size == 128
    assert hub.load_model(transformers.AutoModel, str(tmp_path)).config.num_hidden_layers == 3
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) - 40])
    with pytest.raises(InputError, match="the model cannot be read"):
        hub.load_model(transformers.AutoModel, str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="this folder has a configuration, but no weights"):
        hub.load_model(transformers.AutoModel, str(tmp_path))


def test_a_list_of_words_that_contradicts_the_tokenizer(tmp_path: Path) -> None:
    write_embedded_model(tmp_path)
    words = sorted(hub.load_tokenizer("embedded").get_vocab().items(), key=lambda item: item[1])
    path = tmp_path / "vocab.txt"
    path.write_text("\n".join(word for word, _ in words) + "\n", encoding="utf-8")
    assert len(hub.load_tokenizer(str(tmp_path))) == len(words)
    path.write_text("\n".join(word for word, _ in [*words[:200], *words[201:]]), encoding="utf-8")
    with pytest.raises(InputError, match=r"vocab\.txt and tokenizer\.json contradict each other: .* is number 200 in"):
        hub.load_tokenizer(str(tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_norm_eps": "1e-12"},
        {"hidden_act": None},
        {"architectures": "BertForQuestionAnswering"},
        {"id2label": {"0": 0, "1": 1}},
        {"problem_type": "x"},
        {"model_type": ["bert"]},
        {"pad_token_id": 50_000},
        {"pad_token_id": -1},
        {"hidden_size": "wide"},
        {"num_attention_heads": 0},
    ],
    ids=str,
)
def test_settings_of_other_kinds_are_a_sentence_or_a_model(changes: dict[str, Any], tmp_path: Path) -> None:
    write_embedded_model(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | changes), encoding="utf-8")
    for load in (hub.load_config, lambda name: load_base(name, "squad"), lambda name: load_checkpoint(name, "squad")):
        with suppress(InputError):
            load(str(tmp_path))
    with suppress(InputError):
        load_pruned(tmp_path)
    problems = check_model(RunSpecification(exp_id=1, sheet="a", model_name_or_path=str(tmp_path)))
    assert all(problem.message for problem in problems)


def test_options_of_a_forward_pass_are_the_programs_own(tmp_path: Path) -> None:
    write_embedded_model(tmp_path)
    path = tmp_path / "config.json"
    strange = {"return_dict": False, "chunk_size_feed_forward": 7}
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | strange), encoding="utf-8")
    model = load_base(str(tmp_path), "squad")
    assert model(input_ids=torch.ones(1, 5, dtype=torch.long)).start_logits.shape == (1, 5)


def test_only_the_files_that_are_read_by_name_are_loaded(tmp_path: Path) -> None:
    for name, value in (("model", 1.0), ("model_old", 2.0), ("model_ema", 3.0)):
        save_file({"weight": torch.full((1,), value)}, tmp_path / f"{name}.safetensors")
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    assert hub.load_tensors(str(tmp_path))["weight"].item() == 1.0
