"""DistilBERT (Sanh et al. 2019)."""

from splora.anatomy.family import Family

FAMILY = Family(
    model_type="distilbert",
    classes="DistilBert",
    layers="distilbert.transformer.layer",
    linears={
        "query": "attention.q_lin",
        "key": "attention.k_lin",
        "value": "attention.v_lin",
        "attention_output": "attention.out_lin",
        "ffn_in": "ffn.lin1",
        "ffn_out": "ffn.lin2",
    },
    norms=("LayerNorm", "sa_layer_norm", "output_layer_norm"),
    heads=("pre_classifier", "classifier", "qa_outputs"),
    attention="attention",
    head_count="n_heads",
    layer_norms=("sa_layer_norm", "output_layer_norm"),
    activation="ffn.activation",
    feed_forward=("ffn",),
    dropouts=("dropout", "attention_dropout", "qa_dropout", "seq_classif_dropout"),
    sizes=("n_heads", "hidden_dim"),
    width="dim",
    depth="n_layers",
)
