"""XLM-RoBERTa (Conneau et al. 2020): RoBERTa over a hundred languages."""

from splora.anatomy.family import BERT_LIKE, Family

FAMILY = Family(
    model_type="xlm-roberta",
    classes="XLMRoberta",
    layers="roberta.encoder.layer",
    heads=("classifier", "qa_outputs"),
    segments=True,
    positions_after_padding=True,
    **BERT_LIKE,
)
