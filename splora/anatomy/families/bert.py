"""BERT (Devlin et al. 2018), and what was distilled into its shape: MiniLM, TinyBERT."""

from splora.anatomy.family import BERT_LIKE, Family

FAMILY = Family(
    model_type="bert",
    classes="Bert",
    layers="bert.encoder.layer",
    heads=("pooler", "classifier", "qa_outputs"),
    segments=True,
    **BERT_LIKE,
)
