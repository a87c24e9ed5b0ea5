"""DeBERTa v2 and v3 (He et al. 2021), whose heads also attend to relative positions, by the same weights or others."""

from splora.anatomy.family import BERT_LIKE, Family

FAMILY = Family(
    model_type="deberta-v2",
    classes="DebertaV2",
    layers="deberta.encoder.layer",
    heads=("pooler", "classifier", "qa_outputs"),
    head_rows=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
    gives_tuple=True,
    segments=True,
    excluded={"conv_kernel_size": "the states of its first layer pass a convolution on the way to the second"},
    **BERT_LIKE
    | {
        "linears": BERT_LIKE["linears"] | {role: f"attention.self.{role}_proj" for role in ("query", "key", "value")},
        "dropouts": ("hidden_dropout_prob", "attention_probs_dropout_prob", "pooler_dropout", "cls_dropout"),
    },
)
