"""The README's Python examples, as they stand, on a tiny model: trained both ways, saved, loaded in another process."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from splora.errors import InputError

NAME = '"bert-base-uncased"'


@pytest.fixture(scope="module")
def blocks(root: Path) -> list[str]:
    """Preparing, training with the Trainer, training with Lightning, loading."""
    found = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert len(found) == 4
    return [block.replace(NAME, '"model"') for block in found]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that examples run in; its `model` is a BERT without a head, 64 wide, stored in half precision."""
    from transformers import BertModel

    from splora.tasks.embedded.model import embedded_config
    from splora.tasks.embedded.tokenizer import build_tokenizer

    torch.manual_seed(0)
    config = embedded_config(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64)
    BertModel(config).half().save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _logits(names: dict[str, Any]) -> Tensor:
    model = names["model"].eval()
    with torch.no_grad():
        return model(**names["tokenizer"]("a good film", return_tensors="pt").to(model.device)).logits


@pytest.mark.filterwarnings("ignore")  # what the libraries say to whoever copies the examples
@pytest.mark.parametrize("way", [1, 2], ids=["transformers", "lightning"])
def test_trained_saved_and_loaded_elsewhere_the_same_logits(blocks: list[str], work: Path, way: int) -> None:
    names: dict[str, Any] = {}
    exec(blocks[0], names)
    before = {name: p.detach().clone() for name, p in names["model"].named_parameters() if p.requires_grad}
    assert {p.dtype for p in before.values()} == {torch.float32}
    exec(blocks[way], names)
    moved = {name for name, p in names["model"].named_parameters() if name in before and not p.equal(before[name])}
    for part in ("classifier", "pooler", "position_weights", "scores"):
        assert any(part in name for name in moved), part
    wanted = _logits(names)
    printed = blocks[3].replace("print(", "torch.save(").replace(".logits)", ".logits.detach(), 'logits.pt')")
    done = subprocess.run([sys.executable, "-c", printed], cwd=work, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    torch.testing.assert_close(torch.load(work / "logits.pt"), wanted, rtol=0, atol=1e-5)


def _train(blocks: list[str], trainer: type, folder: str, steps: int, resume: bool = False) -> Any:
    from transformers import TrainingArguments

    names: dict[str, Any] = {}
    torch.manual_seed(3)
    exec(blocks[0].replace('"topK"', '"topK", "uniform", 0.01'), names)
    settings = TrainingArguments(
        folder, learning_rate=1e-2, max_steps=4, save_steps=2, report_to="none", save_total_limit=3,
        per_device_train_batch_size=2, disable_tqdm=True, use_cpu=True, lr_scheduler_type="constant",
    )  # fmt: skip
    made = trainer(names["model"], settings, train_dataset=names["data"], processing_class=names["tokenizer"])
    if steps < 4:
        made.args.max_steps = steps
    made.train(resume_from_checkpoint=resume)
    return names


@pytest.mark.filterwarnings("ignore")
def test_masks_in_training_resume_with_the_masked_trainer(blocks: list[str], work: Path) -> None:
    from safetensors.torch import load_file, save_file

    from splora.adapters.trainer import STATE, MaskedTrainer

    quiet = _train(blocks, MaskedTrainer, "quiet", 4)
    _train(blocks, MaskedTrainer, "cut", 2)
    resumed = _train(blocks, MaskedTrainer, "cut", 4, resume=True)
    for (name, one), (other, two) in zip(
        quiet["model"].state_dict().items(), resumed["model"].state_dict().items(), strict=True
    ):
        assert name == other
        torch.testing.assert_close(two, one, rtol=0, atol=1e-6, msg=name)
    path = work / "cut" / "checkpoint-4" / STATE
    save_file(dict(list(load_file(path).items())[1:]), path)
    with pytest.raises(InputError, match=r"masks_in_training\.safetensors: is of another model or other masks"):
        _train(blocks, MaskedTrainer, "cut", 4, resume=True)
    path.unlink()
    with pytest.raises(InputError, match="written by the plain Trainer"):
        _train(blocks, MaskedTrainer, "cut", 4, resume=True)


@pytest.mark.filterwarnings("ignore")
def test_the_plain_trainer_refuses_to_resume_them_in_a_sentence(blocks: list[str], work: Path) -> None:
    from transformers import Trainer

    _train(blocks, Trainer, "cut", 2)
    with pytest.raises(InputError, match=r"MaskedTrainer of splora\.adapters\.trainer"):
        _train(blocks, Trainer, "cut", 4, resume=True)


def test_the_defaults_of_the_range_agree() -> None:
    from splora.adapters import SPLoPAConfig
    from splora.training.options import AdapterOptions
    from splora.training.specification import RunSpecification

    assert SPLoPAConfig().init_range == AdapterOptions().init_range == RunSpecification().splopa_init_range == 0.02
