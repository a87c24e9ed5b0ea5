"""The embedded corpus as running text, for language models."""

from __future__ import annotations

from splora.tasks.embedded.corpus import DEV_QUESTIONS, TRAIN_QUESTIONS, corpus
from splora.tasks.embedded.words import Split


def paragraphs(split: Split) -> list[str]:
    """The paragraphs that the corpus asks about, one record each; the same every time."""
    questions = TRAIN_QUESTIONS if split == "train" else DEV_QUESTIONS
    articles = corpus(split, questions)["data"]
    return [paragraph["context"] + "\n" for article in articles for paragraph in article["paragraphs"]]
