"""The block structures that Coppice can prune, as signatures. Torch-free.

A family is a layout of modules, not a model: Mistral and Qwen share Llama's layout, and so may a model that is not written
yet. The first signature that fits is taken, so more specific layouts come first.
"""

from __future__ import annotations

from dataclasses import replace

from pruning_core.arch.signatures import BlockSignature, Mixture, StoredExperts, SublayerSignature, UnitRows, qkv

_BERT_MODULE = "attention.self"
_BERT_INPUTS = qkv("attention.self.query", "attention.self.key", "attention.self.value")
_BERT_FFN = SublayerSignature(
    kind="neuron",
    inputs=(UnitRows("intermediate.dense"),),
    activation="intermediate.intermediate_act_fn",
    output="output.dense",
    after="output.LayerNorm",
)


def _bert_pre_norm(attention: str, ffn: str, *, returns: int = 0) -> BlockSignature:
    """Describe blocks with BERT's matrices and a norm before each sublayer, at the given paths."""
    return BlockSignature(
        family="bert-pre-norm",
        returns=returns,
        sublayers=(
            SublayerSignature(
                kind="head", module=_BERT_MODULE, inputs=_BERT_INPUTS, output="attention.output.dense", before=attention
            ),
            replace(_BERT_FFN, before=ffn, after=None),
        ),
    )


def _plain_ffn(before: str | None, after: str | None) -> SublayerSignature:
    return SublayerSignature(
        kind="neuron", inputs=(UnitRows("fc1"),), activation="activation_fn", output="fc2", before=before, after=after
    )


def _opt(*, pre_norm: bool) -> tuple[SublayerSignature, ...]:
    def norms(path: str) -> tuple[str | None, str | None]:
        return (path, None) if pre_norm else (None, path)

    attention, ffn = norms("self_attn_layer_norm"), norms("final_layer_norm")
    return (
        SublayerSignature(
            kind="head",
            module="self_attn",
            inputs=qkv("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            output="self_attn.out_proj",
            before=attention[0],
            after=attention[1],
        ),
        _plain_ffn(*ffn),
    )


def _llama(*, attention: tuple[str | None, str | None], ffn: tuple[str | None, str | None]) -> tuple[SublayerSignature, ...]:
    return (
        SublayerSignature(
            kind="head",
            module="self_attn",
            inputs=qkv("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            output="self_attn.o_proj",
            before=attention[0],
            inner=attention[1],
        ),
        SublayerSignature(
            kind="neuron",
            module="mlp",
            inputs=(UnitRows("mlp.gate_proj"), UnitRows("mlp.up_proj")),
            output="mlp.down_proj",
            before=ffn[0],
            inner=ffn[1],
        ),
    )


def _vit(*, attention: tuple[str, str | None], ffn: tuple[str, str | None]) -> tuple[SublayerSignature, ...]:
    return (
        SublayerSignature(
            kind="head",
            module="attention",
            inputs=qkv("attention.q_proj", "attention.k_proj", "attention.v_proj"),
            output="attention.o_proj",
            before=attention[0],
            inner=attention[1],
        ),
        SublayerSignature(
            kind="neuron",
            inputs=(UnitRows("mlp.fc1"),),
            activation="mlp.activation_fn",
            output="mlp.fc2",
            before=ffn[0],
            inner=ffn[1],
        ),
    )


_VIT_ATTENTION_STORED = {
    "attention.q_proj": "attention.attention.query",
    "attention.k_proj": "attention.attention.key",
    "attention.v_proj": "attention.attention.value",
    "attention.o_proj": "attention.output.dense",
}


def _neox(family: str, module: str, norms: tuple[str, str], *, flag: str, parallel: bool) -> BlockSignature:
    """Describe blocks whose queries, keys and values lie unit by unit in one matrix: GPT-NeoX and Falcon.

    Args:
        family: Name of the layout.
        module: Path of the attention.
        norms: Paths of the norms before attention and FFN; twice the same where both read one.
        flag: Path of the attribute that says whether they stand side by side.
        parallel: Whether they do.
    """
    return BlockSignature(
        family=family,
        returns=0 if module == "attention" else 2,
        causal=True,
        parallel=parallel,
        flag=(flag, parallel),
        sublayers=(
            SublayerSignature(
                kind="head",
                module=module,
                inputs=(UnitRows(f"{module}.query_key_value", fused="by unit"),),
                output=f"{module}.dense",
                before=norms[0],
            ),
            SublayerSignature(
                kind="neuron",
                inputs=(UnitRows("mlp.dense_h_to_4h"),),
                activation="mlp.act",
                output="mlp.dense_4h_to_h",
                before=norms[1],
            ),
        ),
    )


_FALCON = "self_attention"
_IN_TURN = ("input_layernorm", "post_attention_layernorm")
_PARALLEL_ATTENTION = "config.parallel_attn"


def _t5(*, gated: bool) -> BlockSignature:
    def attention(path: str, crosses: tuple[tuple[str, str], ...] = ()) -> SublayerSignature:
        return SublayerSignature(
            kind="head",
            module=path,
            inputs=qkv(f"{path}.q", f"{path}.k", f"{path}.v"),
            output=f"{path}.o",
            before=f"{path.rpartition('.')[0]}.layer_norm",
            positions=True,
            crosses=crosses,
        )

    def ffn(path: str) -> SublayerSignature:
        module = f"{path}.DenseReluDense"
        first = (UnitRows(f"{module}.wi_0"), UnitRows(f"{module}.wi_1")) if gated else (UnitRows(f"{module}.wi"),)
        return SublayerSignature(kind="neuron", module=module, inputs=first, output=f"{module}.wo", before=f"{path}.layer_norm")

    family = "t5-gated" if gated else "t5"
    cross = attention(
        "layer.1.EncDecAttention", (("key_value_states", "encoder_hidden_states"), ("mask", "encoder_attention_mask"))
    )
    return BlockSignature(
        family=family,
        returns=3,
        sublayers=(attention("layer.0.SelfAttention"), ffn("layer.1")),
        memory="final_layer_norm",
        decoder=BlockSignature(family, returns=3, sublayers=(attention("layer.0.SelfAttention"), cross, ffn("layer.2"))),
    )


def _bart(*, pre_norm: bool) -> BlockSignature:
    def norms(path: str) -> tuple[str | None, str | None]:
        return (path, None) if pre_norm else (None, path)

    def attention(path: str, crosses: tuple[tuple[str, str], ...] = ()) -> SublayerSignature:
        before, after = norms(f"{path}_layer_norm")
        return SublayerSignature(
            kind="head",
            module=path,
            inputs=qkv(f"{path}.q_proj", f"{path}.k_proj", f"{path}.v_proj"),
            output=f"{path}.out_proj",
            before=before,
            after=after,
            crosses=crosses,
        )

    family = "mbart" if pre_norm else "bart"
    ffn = _plain_ffn(*norms("final_layer_norm"))
    cross = attention(
        "encoder_attn", (("key_value_states", "encoder_hidden_states"), ("attention_mask", "encoder_attention_mask"))
    )
    return BlockSignature(
        family=family,
        sublayers=(attention("self_attn"), ffn),
        memory="layer_norm" if pre_norm else None,
        decoder=BlockSignature(family, sublayers=(attention("self_attn"), cross, ffn)),
    )


_FUSED = StoredExperts("mlp.gate", ("mlp.experts.gate_up_proj",), "mlp.experts.down_proj", bare=True)


def _mixture(module: str, mixture: Mixture) -> BlockSignature:
    """Describe blocks of a decoder with Llama's attention and a mixture of experts for an FFN."""
    attention, _ = _llama(attention=("input_layernorm", None), ffn=("post_attention_layernorm", None))
    experts = SublayerSignature(
        kind="expert",
        module=module,
        inputs=(),
        output=f"{mixture.experts}.spread",
        before="post_attention_layernorm",
        mixture=mixture,
    )
    return BlockSignature(family="experts", causal=True, whole_attention=True, sublayers=(attention, experts))


def _stored_experts(module: str, inputs: tuple[str, ...], output: str) -> StoredExperts:
    """Describe experts that have a tensor each, as in the files of most checkpoints."""
    paths = tuple(f"{module}.experts.{{}}.{name}" for name in inputs)
    return StoredExperts(f"{module}.gate", paths, f"{module}.experts.{{}}.{output}")


SIGNATURES = (
    # BERT, RoBERTa, ELECTRA, XLM-R, CamemBERT, MiniLM and others that share BERT's module tree.
    BlockSignature(
        family="bert",
        plain=True,
        sublayers=(
            SublayerSignature(
                kind="head",
                module=_BERT_MODULE,
                inputs=_BERT_INPUTS,
                output="attention.output.dense",
                after="attention.output.LayerNorm",
            ),
            _BERT_FFN,
        ),
    ),
    # Megatron-BERT, XLM-RoBERTa-XL and RoBERTa-PreLayerNorm.
    _bert_pre_norm("attention.ln", "ln", returns=1),
    _bert_pre_norm("attention.self_attn_layer_norm", "LayerNorm"),
    _bert_pre_norm("attention.LayerNorm", "intermediate.LayerNorm"),
    BlockSignature(
        family="distilbert",
        plain=True,
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attention",
                inputs=qkv("attention.q_lin", "attention.k_lin", "attention.v_lin"),
                output="attention.out_lin",
                after="sa_layer_norm",
            ),
            SublayerSignature(
                kind="neuron",
                inputs=(UnitRows("ffn.lin1"),),
                activation="ffn.activation",
                output="ffn.lin2",
                after="output_layer_norm",
            ),
        ),
    ),
    # Disentangled attention: keys and queries of relative positions have their own matrices, or share those of the tokens.
    BlockSignature(
        family="deberta-v2",
        returns=2,
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attention.self",
                inputs=qkv("attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj"),
                followers=(UnitRows("attention.self.pos_key_proj"), UnitRows("attention.self.pos_query_proj")),
                output="attention.output.dense",
                after="attention.output.LayerNorm",
            ),
            _BERT_FFN,
        ),
    ),
    BlockSignature(
        family="mpnet",
        returns=1,
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attention.attn",
                inputs=qkv("attention.attn.q", "attention.attn.k", "attention.attn.v"),
                output="attention.attn.o",
                after="attention.LayerNorm",
                positions=True,
            ),
            _BERT_FFN,
        ),
    ),
    BlockSignature(
        family="modernbert",
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attn",
                inputs=(UnitRows("attn.Wqkv", pieces=3),),
                output="attn.Wo",
                before="attn_norm",
            ),
            SublayerSignature(
                kind="neuron", module="mlp", inputs=(UnitRows("mlp.Wi", pieces=2),), output="mlp.Wo", before="mlp_norm"
            ),
        ),
    ),
    BlockSignature(
        family="vit",
        sublayers=_vit(attention=("layernorm_before", None), ffn=("layernorm_after", None)),
        stored={**_VIT_ATTENTION_STORED, "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense"},
    ),
    # DINOv2: what a sublayer adds is scaled, each entry by its own factor.
    BlockSignature(
        family="dinov2",
        sublayers=_vit(attention=("norm1", "layer_scale1"), ffn=("norm2", "layer_scale2")),
        stored=_VIT_ATTENTION_STORED,
    ),
    BlockSignature(
        family="gpt2",
        causal=True,
        transposed=True,
        least_neurons=1,  # Conv1D cannot tell the number of rows of a matrix without columns
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attn",
                inputs=(UnitRows("attn.c_attn", pieces=3),),
                output="attn.c_proj",
                before="ln_1",
            ),
            SublayerSignature(
                kind="neuron", inputs=(UnitRows("mlp.c_fc"),), activation="mlp.act", output="mlp.c_proj", before="ln_2"
            ),
        ),
    ),
    BlockSignature(family="opt", causal=True, flag=("do_layer_norm_before", True), sublayers=_opt(pre_norm=True)),
    BlockSignature(family="opt-post-norm", causal=True, flag=("do_layer_norm_before", False), sublayers=_opt(pre_norm=False)),
    # GPT-NeoX and Pythia: attention and FFN side by side, or one after the other.
    _neox("gpt-neox", "attention", _IN_TURN, flag="use_parallel_residual", parallel=True),
    _neox("gpt-neox-in-turn", "attention", _IN_TURN, flag="use_parallel_residual", parallel=False),
    # Falcon: a norm for each of the two, one for both, or attention and FFN one after the other.
    _neox("falcon", _FALCON, ("ln_attn", "ln_mlp"), flag=_PARALLEL_ATTENTION, parallel=True),
    _neox("falcon-in-turn", _FALCON, _IN_TURN, flag=_PARALLEL_ATTENTION, parallel=False),
    _neox("falcon-one-norm", _FALCON, ("input_layernorm",) * 2, flag=_PARALLEL_ATTENTION, parallel=True),
    # Phi 1 to 2, and GPT-J: side by side behind one norm.
    BlockSignature(
        family="phi",
        causal=True,
        parallel=True,
        sublayers=(
            SublayerSignature(
                kind="head",
                module="self_attn",
                inputs=qkv("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
                output="self_attn.dense",
                before="input_layernorm",
            ),
            SublayerSignature(
                kind="neuron",
                inputs=(UnitRows("mlp.fc1"),),
                activation="mlp.activation_fn",
                output="mlp.fc2",
                before="input_layernorm",
            ),
        ),
    ),
    BlockSignature(
        family="gptj",
        causal=True,
        parallel=True,
        returns=2,
        sublayers=(
            SublayerSignature(
                kind="head",
                module="attn",
                inputs=qkv("attn.q_proj", "attn.k_proj", "attn.v_proj"),
                output="attn.out_proj",
                before="ln_1",
            ),
            SublayerSignature(
                kind="neuron", inputs=(UnitRows("mlp.fc_in"),), activation="mlp.act", output="mlp.fc_out", before="ln_1"
            ),
        ),
    ),
    # Phi 3 and 4: Llama's blocks, with queries, keys and values in one matrix, and gate and up in another.
    BlockSignature(
        family="phi3",
        causal=True,
        sublayers=(
            SublayerSignature(
                kind="head",
                module="self_attn",
                config_heads=True,
                inputs=(UnitRows("self_attn.qkv_proj", fused="in turn"),),
                output="self_attn.o_proj",
                before="input_layernorm",
            ),
            SublayerSignature(
                kind="neuron",
                module="mlp",
                inputs=(UnitRows("mlp.gate_up_proj", pieces=2),),
                output="mlp.down_proj",
                before="post_attention_layernorm",
            ),
        ),
    ),
    # Gemma 2 and 3: one norm before each sublayer, and one on what it adds.
    BlockSignature(
        family="gemma2",
        causal=True,
        marks=("pre_feedforward_layernorm", "post_feedforward_layernorm"),
        sublayers=_llama(
            attention=("input_layernorm", "post_attention_layernorm"),
            ffn=("pre_feedforward_layernorm", "post_feedforward_layernorm"),
        ),
    ),
    # Llama, Mistral, Qwen2, Qwen3, Gemma and others that share Llama's module tree.
    BlockSignature(
        family="llama",
        causal=True,
        lacks_attention=True,
        sublayers=_llama(attention=("input_layernorm", None), ffn=("post_attention_layernorm", None)),
    ),
    # OLMo 2 and 3: norms of what is added. Attention stays whole, since its queries and keys have a norm over all heads.
    BlockSignature(
        family="olmo2",
        causal=True,
        whole_attention=True,
        marks=("self_attn.q_norm",),
        sublayers=_llama(attention=(None, "post_attention_layernorm"), ffn=(None, "post_feedforward_layernorm")),
    ),
    # Cohere, and StableLM with its blocks side by side.
    BlockSignature(
        family="cohere",
        causal=True,
        parallel=True,
        sublayers=_llama(attention=("input_layernorm", None), ffn=("input_layernorm", None)),
    ),
    # Qwen2-MoE, which has an expert that all tokens pass through; Mixtral, Qwen3-MoE and OLMoE; Granite-MoE.
    _mixture(
        "mlp",
        Mixture(
            "mlp.gate",
            "mlp.experts",
            (_stored_experts("mlp", ("gate_proj", "up_proj"), "down_proj"), _FUSED),
            shared=("mlp.shared_expert", "mlp.shared_expert_gate"),
        ),
    ),
    _mixture(
        "mlp",
        Mixture(
            "mlp.gate",
            "mlp.experts",
            (
                _stored_experts("block_sparse_moe", ("w1", "w3"), "w2"),
                _stored_experts("mlp", ("gate_proj", "up_proj"), "down_proj"),
                _FUSED,
            ),
        ),
    ),
    _mixture(
        "block_sparse_moe",
        Mixture(
            "block_sparse_moe.router",
            "block_sparse_moe.experts",
            (
                StoredExperts(
                    "block_sparse_moe.router.layer", ("block_sparse_moe.input_linear",), "block_sparse_moe.output_linear"
                ),
            ),
        ),
    ),
    # GPT-OSS: experts with biases, whose gates and values take turns.
    _mixture(
        "mlp",
        Mixture(
            "mlp.router",
            "mlp.experts",
            (StoredExperts("mlp.router", ("mlp.experts.gate_up_proj",), "mlp.experts.down_proj", transposed=True, bare=True),),
        ),
    ),
    _t5(gated=False),
    _t5(gated=True),
    replace(_t5(gated=False), decoder=None, memory=None),  # the encoder alone, for token-classification
    replace(_t5(gated=True), decoder=None, memory=None),
    # mBART, Pegasus, M2M100, NLLB and Blenderbot; then BART and Marian.
    _bart(pre_norm=True),
    _bart(pre_norm=False),
    # BioGPT and XGLM: OPT's modules, pre-norm.
    BlockSignature(family="biogpt", causal=True, sublayers=_opt(pre_norm=True)),
)
