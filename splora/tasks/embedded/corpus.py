"""Short factual paragraphs with questions, in SQuAD's layout, made from templates.

A paragraph tells about two subjects of one kind, so that every question meets several names and dates of the
right type and only the sentence about its subject and relation answers it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splora.files import write_json
from splora.tasks.embedded.words import Names, Split

TRAIN_QUESTIONS = 3000
DEV_QUESTIONS = 400
SEED = 92
SLOT = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Fact:
    """One thing to say about a subject: sentences that say it, and questions with the slot that answers them."""

    statements: tuple[str, ...]
    questions: tuple[tuple[str, str], ...]


#: Facts by kind of subject. `{self}` is the subject; a slot's number only tells slots of a kind apart.
FACTS: dict[str, tuple[Fact, ...]] = {
    "person": (
        Fact(
            ("{self} was born in {town} in {year}.", "In {year} {self} was born in {town}."),
            (
                ("When was {self} born?", "year"),
                ("Where was {self} born?", "town"),
                ("Who was born in {town}?", "self"),
            ),
        ),
        Fact(
            ("{self} worked as a {trade} in {town2}.", "In {town2} {self} worked as a {trade}."),
            (
                ("Where did {self} work?", "town2"),
                ("What did {self} work as?", "trade"),
                ("Who worked in {town2}?", "self"),
            ),
        ),
        Fact(
            ("{self} invented the {device} in {year2}.", "In {year2} {self} invented the {device}."),
            (
                ("What did {self} invent?", "device"),
                ("Who invented the {device}?", "self"),
                ("When was the {device} invented?", "year2"),
            ),
        ),
        Fact(
            ("{self} married {person} in {year3}.", "In {year3} {self} married {person}."),
            (("Who was married to {self}?", "person"), ("When did {self} marry?", "year3")),
        ),
        Fact(
            ("{self} sailed from {town3} to {town4}.", "From {town3} {self} sailed to {town4}."),
            (("Where did {self} sail from?", "town3"), ("Where did {self} sail to?", "town4")),
        ),
    ),
    "town": (
        Fact(
            ("{self} lies on the {river}.", "The {river} flows through {self}."),
            (("Which river flows through {self}?", "river"), ("Which town lies on the {river}?", "self")),
        ),
        Fact(
            ("{self} was founded by {person} in {year}.", "In {year} {person} founded {self}."),
            (
                ("Who founded {self}?", "person"),
                ("When was {self} founded?", "year"),
                ("Which town was founded by {person}?", "self"),
            ),
        ),
        Fact(
            ("The {building} of {self} was opened in {year2}.", "In {year2} the {building} of {self} was opened."),
            (("When was the {building} of {self} opened?", "year2"), ("What was opened in {self}?", "building")),
        ),
        Fact(
            ("{self} is known for its {goods}.", "Many people buy {goods} in {self}, which is known for it."),
            (("What is {self} known for?", "goods"), ("Which town is known for {goods}?", "self")),
        ),
        Fact(
            ("{person2} was mayor of {self}.", "The mayor of {self} was {person2}."),
            (("Who was mayor of {self}?", "person2"), ("Where was {person2} mayor?", "self")),
        ),
    ),
    "river": (
        Fact(
            ("The {self} rises near {town}.", "Near {town} rises the {self}."),
            (("Where does the {self} rise?", "town"), ("Which river rises near {town}?", "self")),
        ),
        Fact(
            ("The {self} is {miles} miles long.", "Over {miles} miles long is the {self}."),
            (("How long is the {self}?", "miles"), ("Which river is {miles} miles long?", "self")),
        ),
        Fact(
            ("{person} crossed the {self} in {year}.", "In {year} the {self} was crossed by {person}."),
            (("Who crossed the {self}?", "person"), ("When was the {self} crossed?", "year")),
        ),
        Fact(
            ("The {self} flooded {town2} in {year2}.", "In {year2} the {self} flooded {town2}."),
            (("Which town was flooded by the {self}?", "town2"), ("When was {town2} flooded?", "year2")),
        ),
    ),
}


def corpus(split: Split, questions: int, seed: int = SEED, impossible: bool = False) -> dict[str, Any]:
    """A data set in SQuAD's layout with `questions` questions; the same for the same arguments.

    Args:
        split: whose entities are used; the two splits share none.
        questions: how many.
        seed: of everything drawn.
        impossible: SQuAD 2.0's layout, with about a third of the questions asking for what the paragraph leaves out.
    """
    rng = random.Random(f"{split} {seed}")
    names = Names(split, rng)
    articles: dict[str, list[dict[str, Any]]] = {kind: [] for kind in FACTS}
    asked = 0
    while asked < questions:
        kind = rng.choice(list(FACTS))
        names.forget()
        paragraph = _paragraph(kind, names, rng, impossible)
        for question in paragraph["qas"]:
            question["id"] = f"{split}-{asked:05d}"
            asked += 1
        articles[kind].append(paragraph)
    surplus = asked - questions
    last = articles[kind][-1]
    last["qas"] = last["qas"][: len(last["qas"]) - surplus]
    data = [{"title": kind, "paragraphs": paragraphs} for kind, paragraphs in articles.items() if paragraphs]
    return {"version": "v2.0" if impossible else "1.1", "data": data}


def write_corpus(folder: str | Path, impossible: bool = False, seed: int = SEED) -> tuple[Path, Path]:
    """Write `train.json` (3,000 questions) and `dev.json` (400) into `folder`; return their paths.

    Raises:
        InputError: the folder cannot be written to.
    """
    train, dev = Path(folder) / "train.json", Path(folder) / "dev.json"
    write_json(train, corpus("train", TRAIN_QUESTIONS, seed, impossible))
    write_json(dev, corpus("dev", DEV_QUESTIONS, seed, impossible))
    return train, dev


def texts() -> Iterator[str]:
    """All templates, for a vocabulary."""
    for facts in FACTS.values():
        for fact in facts:
            yield from fact.statements
            yield from (question for question, _ in fact.questions)


def fill(fact: Fact, subject: str, names: Names) -> dict[str, str]:
    """What stands in each slot of a fact about `subject`."""
    slots = dict.fromkeys(slot for statement in fact.statements for slot in SLOT.findall(statement))
    return {slot: subject if slot == "self" else names.draw(slot.rstrip("0123456789")) for slot in slots}


def render(template: str, slots: dict[str, str]) -> tuple[str, dict[str, int]]:
    """The text of a statement or question, and where in it each slot stands."""
    text, places, done = "", {}, 0
    for match in SLOT.finditer(template):
        text += template[done : match.start()]
        places[match[1]] = len(text)
        text += slots[match[1]]
        done = match.end()
    return text + template[done:], places


def _paragraph(kind: str, names: Names, rng: random.Random, impossible: bool) -> dict[str, Any]:
    """Two subjects with two facts each; the facts differ or not, as drawn."""
    told: list[tuple[Fact, dict[str, str]]] = []
    untold: list[tuple[Fact, dict[str, str]]] = []
    for _ in range(2):
        subject = names.draw(kind)
        for number, fact in enumerate(rng.sample(FACTS[kind], 3)):
            (told if number < 2 else untold).append((fact, fill(fact, subject, names)))
    rng.shuffle(told)
    context, spans = "", []
    for fact, slots in told:
        sentence, places = render(rng.choice(fact.statements), slots)
        spans.append({slot: len(context) + place for slot, place in places.items()})
        context += sentence + " "
    qas = []
    for (fact, slots), places in zip(told, spans, strict=True):
        question, slot = rng.choice(fact.questions)
        answer = {"text": slots[slot], "answer_start": places[slot]}
        qas.append(_question(question, slots, [answer], impossible))
    if impossible:
        # Only questions about the subject itself: it is in the paragraph, what is asked about it is not.
        for fact, slots in untold:
            question = rng.choice([text for text, slot in fact.questions if slot != "self" and "{self}" in text])
            qas.append(_question(question, slots, [], impossible))
        rng.shuffle(qas)
    return {"context": context.rstrip(), "qas": qas}


def _question(template: str, slots: dict[str, str], answers: list[dict[str, Any]], impossible: bool) -> dict[str, Any]:
    asked: dict[str, Any] = {"id": "", "question": render(template, slots)[0], "answers": answers}
    return asked | {"is_impossible": not answers} if impossible else asked
