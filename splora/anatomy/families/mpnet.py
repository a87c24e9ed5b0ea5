"""MPNet (Song et al. 2020), which gives the attention of every layer one bias by head and distance."""

from splora.anatomy.family import BERT_LIKE, Family

FAMILY = Family(
    model_type="mpnet",
    classes="MPNet",
    layers="mpnet.encoder.layer",
    heads=("classifier", "qa_outputs"),
    gives_tuple=True,
    positions_after_padding=True,
    bias_by_head=True,
    **BERT_LIKE
    | {
        "linears": BERT_LIKE["linears"]
        | {
            "query": "attention.attn.q",
            "key": "attention.attn.k",
            "value": "attention.attn.v",
            "attention_output": "attention.attn.o",
        },
        "attention": "attention.attn",
        "layer_norms": ("attention.LayerNorm", "output.LayerNorm"),
        "dropouts": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    },
)
