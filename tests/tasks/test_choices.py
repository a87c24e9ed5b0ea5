"""Multiple choice: scores are those of a loop over one ending at a time; and each way its files can be broken."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from splora.errors import InputError
from splora.evaluation import evaluate
from splora.posttraining.core.evaluation import divergence, outputs_of, predict
from splora.tasks.choice_tasks import LAYOUTS, TASKS, read_questions
from splora.tasks.choices import ChoicesDataModule
from splora.tasks.sources import canonical_task, data_sources
from splora.tasks.text_sources import read_text
from splora.training.small_decoder import SmallOPT, write_untrained

ARC = {"question": "Which is hot?", "choices": {"text": ["fire", "ice water"], "label": ["A", "B"]}, "answerKey": "A"}
SWAG = {
    "activity_label": "Running",
    "ctx_a": "A man runs.",
    "ctx_b": "he",
    "ctx": "A man runs. he",
    "endings": ["stops [title] slowly.", "flies to the moon  in a ship.", "eats.", "is the dev of a longer ending."],
    "label": "1",
}
PIQA = {"goal": "Open a jar.", "sol1": "Turn the lid.", "sol2": "Eat the lid with a spoon.", "label": 0}
WINO = {
    "sentence": "The cup did not fit the box because _ was too small.",
    "option1": "the cup",
    "option2": "the box",
    "answer": "2",
}
ROWS = {"ARC": ARC, "HellaSwag": SWAG, "PIQA": PIQA, "WinoGrande": WINO}


def written(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A random tiny OPT and a random tiny Llama, with grouped queries, of one tokenizer."""
    place = tmp_path_factory.mktemp("decoders")
    (place / "opt").mkdir()
    sizes = SmallOPT(vocabulary=300, positions=96, layers=2, hidden=16, heads=4, neurons=32)
    models: dict[str, Any] = {"opt": write_untrained(sizes, read_text("embedded", "wikitext2", "train"), place / "opt")}
    config = transformers.LlamaConfig(
        vocab_size=models["opt"].config.vocab_size,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=96,
        pad_token_id=1,
    )
    models["llama"] = transformers.LlamaForCausalLM(config)
    transformers.AutoTokenizer.from_pretrained(place / "opt").save_pretrained(place / "llama")
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        for name, model in models.items():
            for parameter in model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
            model.save_pretrained(place / name)
    return {name: place / name for name in models}


def one_by_one(folder: Path, pairs: list[tuple[str, str]], width: int) -> list[float]:
    """Log-likelihoods as the harness defines them, one ending at a time, without padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    found = []
    for context, ending in pairs:
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, ending = context[:-spaces], context[-spaces:] + ending
        before = tokenizer.encode(context, add_special_tokens=False)
        after = tokenizer.encode(context + ending, add_special_tokens=False)[len(before) :]
        ids = torch.tensor([(before + after)[-(width + 1) :][:-1]])
        with torch.no_grad():
            logits = model(ids).logits[0, -len(after) :].double().log_softmax(-1)
        found.append(float(logits[torch.arange(len(after)), torch.tensor(after)].sum()))
    return found


@pytest.mark.parametrize("family", ["opt", "llama"])
@pytest.mark.parametrize(("layout", "width"), [*((layout, None) for layout in ROWS), ("HellaSwag", 24)])
def test_likelihoods_are_those_of_one_ending_at_a_time(
    folders: dict[str, Path], family: str, layout: str, width: int | None, tmp_path: Path, caplog: Any
) -> None:
    spaced = {"PIQA": {**PIQA, "goal": "Open the other jar of the two  "}}.get(layout, ROWS[layout])
    file = written(tmp_path / "test.jsonl", ROWS[layout], spaced)
    data = ChoicesDataModule(str(folders[family]), None, str(file), width)
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(folders[family]).eval()
    found = -outputs_of(model, data)["losses"]
    questions = data.questions
    pairs = [
        (before, " " + after) for one in questions for before, after in zip(one.contexts, one.endings, strict=True)
    ]
    wanted = one_by_one(folders[family], pairs, width or 96)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert sum("cut on the left" in record.message for record in caplog.records) == (width is not None)

    counts = np.cumsum([0, *(len(question.endings) for question in questions)])
    by_sum = [int(np.argmax(wanted[a:b])) for a, b in itertools.pairwise(counts)]
    normed = np.array(wanted) / [len(ending) for _, ending in [(b, a[1:]) for b, a in pairs]]
    by_length = [int(np.argmax(normed[a:b])) for a, b in itertools.pairwise(counts)]
    answers = [question.answer for question in questions]
    scores = evaluate(folders[family], "choices", file, max_seq_length=width, precision="fp32", device="cpu")
    assert scores == {
        "accuracy": 100 * np.mean(np.equal(by_sum, answers)),
        "accuracy_norm": 100 * np.mean(np.equal(by_length, answers)),
    }
    same = predict(model, data)
    assert divergence(same, same) == 0


def test_questions_are_worded_as_the_harness_words_them(tmp_path: Path) -> None:
    read = {
        name: read_questions(str(written(tmp_path / f"{name}.jsonl", row)), "choices", "eval")[0]
        for name, row in ROWS.items()
    }
    assert {name: question.answer for name, question in read.items()} == {
        "ARC": 0,
        "HellaSwag": 1,
        "PIQA": 0,
        "WinoGrande": 1,
    }
    assert read["ARC"].contexts == ("Question: Which is hot?\nAnswer:",) * 2
    assert read["HellaSwag"].contexts == ("Running: A man runs. He",) * 4
    assert read["HellaSwag"].endings[:2] == ("stops.  slowly.".replace("  ", " "), "flies to the moon in a ship.")
    assert read["WinoGrande"].contexts[1] == "The cup did not fit the box because the box"
    assert read["WinoGrande"].endings == ("was too small.",) * 2
    assert {layout.name for layout in LAYOUTS.values()} == {*ROWS}


@pytest.mark.parametrize(
    ("task", "rows", "told"),
    [
        ("choices", [SWAG, {**SWAG, "endings": None}], "line 2: has no endings; the questions before it are written"),
        ("choices", [{**SWAG, "endings": None}], "line 1: has activity_label, ctx_a, ctx_b, ctx, label; questions are"),
        ("choices", [{**SWAG, "endings": []}], "line 1: endings is [] where a list of texts is needed"),
        ("choices", [{**SWAG, "endings": ["a", ""]}], "line 1: endings has '' at place 2 where a text is needed"),
        ("choices", [{**SWAG, "endings": ["alone"], "label": 0}], "line 1: has 1 endings; two at least are needed"),
        ("choices", [PIQA, {**PIQA, "label": 2}], "line 2: label is 2; allowed are 0, 1"),
        ("choices", [{**PIQA, "label": -1}], "line 1: label is -1; allowed are 0, 1"),
        ("choices", [{**PIQA, "label": True}], "line 1: label is True; allowed are 0, 1"),
        ("choices", [{**SWAG, "label": ""}], "line 1: label is ''; allowed are 0, 1, 2, 3"),
        ("choices", [{**WINO, "answer": "0"}], "line 1: answer is '0'; allowed are 1, 2"),
        ("choices", [{**WINO, "sentence": "no blank"}], "line 1: sentence has no blank (_)"),
        ("choices", [{**ARC, "answerKey": "C"}], "line 1: answerKey is 'C'; the labels of its choices are A, B"),
        ("choices", [{**ARC, "choices": ["a", "b"]}], "line 1: choices is ['a', 'b']; an object with the lists text"),
        ("choices", [ARC, PIQA], "line 2: has no question and no choices and no answerKey and is written like PIQA's"),
        ("hellaswag", [ARC], "line 1: has no ctx and no endings and no label and is written like ARC's; hellaswag is"),
        ("choices", [], "is empty"),
    ],
)
def test_what_is_no_question_is_told_with_file_and_line(
    task: str, rows: list[dict[str, Any]], told: str, tmp_path: Path
) -> None:
    file = written(tmp_path / "test.jsonl", *rows)
    with pytest.raises(InputError) as caught:
        read_questions(str(file), task, "eval")
    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}: ")
    assert told in problem


def test_splits_of_a_folder_and_names_on_the_hub(tmp_path: Path) -> None:
    for name in ("ARC-Easy-Train", "ARC-Easy-Dev", "ARC-Easy-Test"):
        written(tmp_path / f"{name}.jsonl", ARC)
    folder = str(tmp_path)
    assert [Path(str(path)).stem for path in data_sources(folder, "ARC-Easy")] == ["ARC-Easy-Train", "ARC-Easy-Test"]
    assert Path(str(data_sources(folder, "choices")[1])).stem == "ARC-Easy-Dev"
    assert [canonical_task(name) for name in ("WinoGrande", "arc-c", "PIQA")] == ["winogrande", "arc_challenge", "piqa"]
    assert all(task.hub for name, task in TASKS.items() if name != "choices")
    with pytest.raises(InputError, match="task choices needs a file or folder of questions"):
        read_questions(None, "choices", "eval")


def test_a_decoder_is_pruned_and_judged_by_choices_and_an_encoder_refused(
    folders: dict[str, Path], tmp_path: Path, command: Callable[..., tuple[int, str]], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{**PIQA, "goal": f"{PIQA['goal']} Number {number}."} for number in range(40)]
    written(tmp_path / "train.jsonl", *rows)
    written(tmp_path / "valid.jsonl", *rows[:5])
    shared = ["--precision=fp32", "--device=cpu", "--threads=1"]
    status, said = command(
        *("prune", "stat", f"--model={folders['llama']}", "--task=choices", "--data=.", "--budget=mac=0.6"),
        *("--output=small", "--num_samples=40", "--latency_seq_len=8", "--latency_batch_size=1", *shared),
    )
    assert status == 0, said
    result = json.loads(Path("small/result.json").read_text(encoding="utf-8"))
    assert 0.3 < result["macs_kept"] <= 0.6
    assert all(value >= 0 for value in result["kl_divergence"].values())
    status, said = command("evaluate", "--model=small", "--task=choices", "--data=valid.jsonl", *shared)
    assert status == 0
    assert f"accuracy: {result['pruned']:.4f}" in said
    status, said = command("evaluate", "--model=small", "--task=wikitext2", "--data=embedded", *shared)
    assert status == 0
    assert "perplexity: " in said

    (tmp_path / "bert").mkdir()
    transformers.BertConfig(num_hidden_layers=1).save_pretrained("bert")
    (tmp_path / "bert" / "model.safetensors").touch()
    status, said = command("evaluate", "--model=bert", "--task=choices", "--data=valid.jsonl", *shared)
    assert (status, said.count("\n")) == (2, 1)
    assert "is of the family bert, no causal language model; choices needs one of" in said
