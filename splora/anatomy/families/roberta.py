"""RoBERTa (Liu et al. 2019)."""

from splora.anatomy.family import BERT_LIKE, Family

FAMILY = Family(
    model_type="roberta",
    classes="Roberta",
    layers="roberta.encoder.layer",
    heads=("classifier", "qa_outputs"),
    segments=True,
    positions_after_padding=True,
    **BERT_LIKE,
)
