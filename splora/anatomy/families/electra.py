"""ELECTRA's discriminator (Clark et al. 2020), whose embeddings may be narrower than its layers."""

from splora.anatomy.family import BERT_LIKE, Family

FAMILY = Family(
    model_type="electra",
    classes="Electra",
    layers="electra.encoder.layer",
    heads=("classifier", "qa_outputs"),
    segments=True,
    **BERT_LIKE | {"dropouts": (*BERT_LIKE["dropouts"], "summary_last_dropout")},
)
