"""The block structures of decoders alone, as signatures. Torch-free. `arch.families` says what a signature is for."""

from __future__ import annotations

from pruning_core.arch.signatures import BlockSignature, Mixture, StoredExperts, SublayerSignature, UnitRows, qkv


def plain_ffn(before: str | None, after: str | None) -> SublayerSignature:
    """Describe an FFN of two matrices with an activation between them, by the paths of its norms."""
    return SublayerSignature(
        kind="neuron", inputs=(UnitRows("fc1"),), activation="activation_fn", output="fc2", before=before, after=after
    )


def opt(*, pre_norm: bool) -> tuple[SublayerSignature, ...]:
    """Describe the sublayers of OPT, with norms before them or after their sums."""

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
        plain_ffn(*ffn),
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


DECODERS = (
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
    BlockSignature(family="opt", causal=True, flag=("do_layer_norm_before", True), sublayers=opt(pre_norm=True)),
    BlockSignature(family="opt-post-norm", causal=True, flag=("do_layer_norm_before", False), sublayers=opt(pre_norm=False)),
    # GPT-NeoX and Pythia: attention and FFN side by side, or one after the other.
    _neox("gpt-neox", "attention", _IN_TURN, flag="use_parallel_residual", parallel=True),
    _neox("gpt-neox-in-turn", "attention", _IN_TURN, flag="use_parallel_residual", parallel=False),
    # Falcon: a norm for each of the two, one for both, or attention and FFN one after the other.
    _neox("falcon", _FALCON, ("ln_attn", "ln_mlp"), flag=_PARALLEL_ATTENTION, parallel=True),
    _neox("falcon-in-turn", _FALCON, _IN_TURN, flag=_PARALLEL_ATTENTION, parallel=False),
    _neox("falcon-one-norm", _FALCON, ("input_layernorm", "input_layernorm"), flag=_PARALLEL_ATTENTION, parallel=True),
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
    # VaultGemma: norms where Llama has them, under other names.
    BlockSignature(
        family="vaultgemma",
        causal=True,
        sublayers=_llama(attention=("input_layernorm", None), ffn=("pre_feedforward_layernorm", None)),
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
)
