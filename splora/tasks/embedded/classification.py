"""Small classification sets in the layout of GLUE's tables, made from the corpus' facts and a few opinions.

Pairs say or ask the same fact in two wordings, or change one name or date of it, or turn to another fact of the
same subject; opinions are decided by negations and by what follows a "but".
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from splora.errors import InputError, nearest
from splora.files import write_text
from splora.tasks.embedded.corpus import FACTS, SEED, Fact, fill, render
from splora.tasks.embedded.words import Names, Split, words

TRAIN_EXAMPLES = 3000
DEV_EXAMPLES = 400

THINGS = words("story music acting ending plot film book song play cast script scenery")
GOOD = words("superb charming clever moving funny warm gripping lovely brilliant fresh honest delightful")
BAD = words("dull clumsy boring tedious weak awful silly stale cold messy flat dreadful")
DEGREES = words("very quite truly rather simply really")
NEGATIONS = words("not never hardly")
#: Another way to ask a question.
POLITE = "Please tell me: {question}"

#: Header and files of each task's folder; the header's names are where the cells come from.
HEADERS: dict[str, tuple[str, ...]] = {
    "mnli": ("index", "sentence1", "sentence2", "gold_label"),
    "qqp": ("id", "question1", "question2", "is_duplicate"),
    "sst2": ("sentence", "label"),
    "qnli": ("index", "question", "sentence", "label"),
    "mrpc": ("Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"),
    "rte": ("index", "sentence1", "sentence2", "label"),
    "cola": ("source", "label", "star", "sentence"),
    "stsb": ("index", "sentence1", "sentence2", "score"),
}


def write_glue(folder: str | Path, task: str, seed: int = SEED) -> Path:
    """Write the tables of a task (train.tsv and dev.tsv; MNLI: two of the latter) into `folder`; return it.

    Raises:
        InputError: an unknown task, or the folder cannot be written to.
    """
    names = ("dev_matched.tsv", "dev_mismatched.tsv") if task == "mnli" else ("dev.tsv",)
    for name in ("train.tsv", *names):
        write_text(Path(folder) / name, table(task, name, seed))
    return Path(folder)


def table(task: str, name: str, seed: int = SEED) -> str:
    """The text of the file `name` (train.tsv, dev.tsv, …) of a task; the same for the same arguments.

    Raises:
        InputError: an unknown task.
    """
    if task not in HEADERS:
        raise InputError(
            f"embedded: there is no task {task!r}; there are {', '.join(HEADERS)}{nearest(task, HEADERS) or '.'}"
        )
    rng = random.Random(f"{task} {name} {seed}")
    split: Split = "train" if name.startswith("train") else "dev"
    names = Names(split, rng)
    rows = [_row(task, number, names, rng) for number in range(TRAIN_EXAMPLES if split == "train" else DEV_EXAMPLES)]
    header = [] if task == "cola" else [HEADERS[task]]
    return "".join("\t".join(row) + "\n" for row in (*header, *rows))


def texts() -> Iterator[str]:
    """All words and templates that the corpus has not, for a vocabulary."""
    yield " ".join(("the was but", *THINGS, *GOOD, *BAD, *DEGREES, *NEGATIONS))
    yield POLITE


def _row(task: str, number: int, names: Names, rng: random.Random) -> tuple[str, ...]:
    names.forget()
    if task == "sst2":
        return _opinion(rng)
    if task == "cola":
        return _grammar(names, rng)
    if task == "qnli":
        return (str(number), *_question_and_sentence(names, rng))
    if task == "qqp":
        return (str(number), *_questions(names, rng))
    kind = rng.choice(("same", "changed", "other") if task in ("mnli", "stsb") else ("same", "changed"))
    first, second = _statements(kind, names, rng)
    if task == "mrpc":
        return ("1" if kind == "same" else "0", f"{number}a", f"{number}b", first, second)
    label = {
        "mnli": {"same": "entailment", "changed": "contradiction", "other": "neutral"},
        "rte": {"same": "entailment", "changed": "not_entailment"},
        "stsb": {"same": "5.0", "changed": "3.0", "other": "1.0"},
    }[task][kind]
    return (str(number), first, second, label)


def _opinion(rng: random.Random) -> tuple[str, str]:
    """One or two clauses; the last decides."""
    clauses, good = [], False
    for _ in range(rng.choice((1, 2))):
        good, negated = rng.random() < 0.5, rng.random() < 0.3
        word = rng.choice(GOOD if good != negated else BAD)
        degree = rng.choice(NEGATIONS) if negated else rng.choice(("", *DEGREES))
        clauses.append(" ".join(f"the {rng.choice(THINGS)} was {degree} {word}".split()))
    return " but ".join(clauses) + " .", str(int(good))


def _grammar(names: Names, rng: random.Random) -> tuple[str, str, str, str]:
    """A statement, with two unlike words changing places in half of the rows."""
    text, fine = _say(*_fact(names, rng), rng), rng.random() < 0.5
    if not fine:
        spoiled = text.rstrip(".").split()
        place = rng.randrange(1, len(spoiled) - 2)
        spoiled[place], spoiled[place + 2] = spoiled[place + 2], spoiled[place]
        text = " ".join(spoiled) + "."
    return ("embedded", str(int(fine)), "" if fine else "*", text)


def _question_and_sentence(names: Names, rng: random.Random) -> tuple[str, str, str]:
    kind, fact, slots = _fact_of_kind(names, rng)
    question = render(rng.choice([text for text, _ in fact.questions if "{self}" in text]), slots)[0]
    if rng.random() < 0.5:
        return question, _say(fact, slots, rng), "entailment"
    other = rng.choice([another for another in FACTS[kind] if another is not fact])
    return question, _say(other, fill(other, slots["self"], names), rng), "not_entailment"


def _questions(names: Names, rng: random.Random) -> tuple[str, str, str]:
    """A question twice, once politely; or about another subject, or another fact of the same."""
    kind, fact, slots = _fact_of_kind(names, rng)
    asked = rng.choice([text for text, _ in fact.questions if "{self}" in text])
    second, duplicate = render(asked, slots)[0], rng.random() < 0.5
    if not duplicate and rng.random() < 0.5:
        second = render(asked, slots | {"self": names.draw(kind)})[0]
    elif not duplicate:
        other = rng.choice([another for another in FACTS[kind] if another is not fact])
        text = rng.choice([text for text, _ in other.questions if "{self}" in text])
        second = render(text, fill(other, slots["self"], names))[0]
    pair = [render(asked, slots)[0], POLITE.format(question=second)]
    rng.shuffle(pair)
    return pair[0], pair[1], str(int(duplicate))


def _statements(kind: str, names: Names, rng: random.Random) -> tuple[str, str]:
    subject_kind, fact, slots = _fact_of_kind(names, rng)
    first = _say(fact, slots, rng)
    if kind == "same":
        return first, _say(fact, slots, rng)
    if kind == "changed":
        slot = rng.choice([slot for slot in slots if slot != "self"])
        return first, _say(fact, slots | {slot: names.draw(slot.rstrip("0123456789"))}, rng)
    other = rng.choice([another for another in FACTS[subject_kind] if another is not fact])
    return first, _say(other, fill(other, slots["self"], names), rng)


def _fact_of_kind(names: Names, rng: random.Random) -> tuple[str, Fact, dict[str, str]]:
    kind = rng.choice(list(FACTS))
    fact = rng.choice(FACTS[kind])
    return kind, fact, fill(fact, names.draw(kind), names)


def _fact(names: Names, rng: random.Random) -> tuple[Fact, dict[str, str]]:
    return _fact_of_kind(names, rng)[1:]


def _say(fact: Fact, slots: dict[str, str], rng: random.Random) -> str:
    return render(rng.choice(fact.statements), slots)[0]
