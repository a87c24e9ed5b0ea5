"""OPT (Zhang et al. 2022), a decoder; its 350M has norms after the residual sums, all others before."""

from splora.anatomy.family import Family

FAMILY = Family(
    model_type="opt",
    classes="OPT",
    tasks=("SequenceClassification", "QuestionAnswering", "CausalLM"),
    layers="model.decoder.layers",
    linears={
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_output": "self_attn.out_proj",
        "ffn_in": "fc1",
        "ffn_out": "fc2",
    },
    norms=("self_attn_layer_norm", "final_layer_norm"),
    heads=("score", "qa_outputs"),
    attention="self_attn",
    head_count="num_heads",
    layer_norms=("self_attn_layer_norm", "final_layer_norm"),
    activation="activation_fn",
    feed_forward=("fc1", "activation_fn"),
    dropouts=("dropout", "attention_dropout"),
    sizes=("num_attention_heads", "ffn_dim"),
    norm_first="do_layer_norm_before",
    causal=True,
    layer_drop="layerdrop",
)
