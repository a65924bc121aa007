"""A small model of any architecture of transformers, from its default configuration alone."""

import inspect
from collections.abc import Mapping
from typing import Any, cast

from transformers import AutoModel, PretrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from zoo_inputs import Input
from zoo_models import SEQ2SEQ, TEXT, Entry

SMALL: Mapping[int, tuple[str, ...]] = {
    64: (
        *("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "emb_dim", "embedding_size", "projection_dim"),
        *("max_position_embeddings", "n_positions", "n_ctx", "max_source_positions", "max_target_positions"),
        *("image_size", "encoder_hidden_size", "decoder_hidden_size", "hidden_dim", "input_feat_per_channel"),
    ),
    128: (
        *("vocab_size", "intermediate_size", "ffn_dim", "d_ff", "encoder_ffn_dim", "decoder_ffn_dim", "n_inner"),
        *("ffn_hidden_size", "inner_dim", "shared_expert_intermediate_size", "encoder_intermediate_size"),
    ),
    4: (
        *("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
        *("decoder_attention_heads", "encoder_num_attention_heads", "num_experts", "num_local_experts"),
        *("n_routed_experts",),
    ),
    2: (
        *("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"),
        *("num_decoder_layers", "encoder_num_hidden_layers", "num_key_value_heads", "num_kv_heads"),
        *("num_experts_per_tok", "moe_top_k", "first_k_dense_replace"),
    ),
    16: ("head_dim", "d_kv", "attention_head_size", "kv_channels", "rotary_dim"),
    32: ("moe_intermediate_size",),
    8: ("patch_size", "sliding_window", "attention_window"),
}
"""What a dimension of a small model measures, by the names that configurations have for it."""

TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 127, "decoder_start_token_id": 1}


def small(kind: type[PretrainedConfig]) -> dict[str, Any]:
    """What to give a configuration class, and the ones in it, to make a small model."""
    default = kind()
    sizes = {name: size for size, names in SMALL.items() for name in names}
    chosen: dict[str, Any] = {}
    # A hierarchy with heads of its own for each level keeps its widths.
    levels = any(isinstance(getattr(default, name, None), (list, tuple)) for name in SMALL[4])
    for name, value in ((TOKENS | {"image_size": 64}) if levels else (sizes | TOKENS)).items():
        found = getattr(default, name, None)
        if isinstance(found, int) and not isinstance(found, bool):
            chosen[name] = min(value, found) if name != "image_size" else value
    for name, part in kind.sub_configs.items():
        if part is not PretrainedConfig and hasattr(part, "model_type") and getattr(default, name, None) is not None:
            chosen[name] = small(type(getattr(default, name)))
    return chosen


def inputs_of(config: PretrainedConfig, parameters: Mapping[str, Any]) -> dict[str, Input]:
    """The inputs an export takes, by what `forward` takes. Raises: ValueError where they cannot be made up."""
    found: dict[str, Input] = {}
    if "input_ids" in parameters:
        found |= TEXT if "attention_mask" in parameters else {"input_ids": TEXT["input_ids"]}
    if "pixel_values" in parameters:
        vision = getattr(config, "vision_config", config)
        size = getattr(vision, "image_size", 64)
        height, width = size if isinstance(size, (list, tuple)) else (size, size)
        found["pixel_values"] = Input(("batch", getattr(vision, "num_channels", 3), height, width))
    if "input_values" in parameters:
        found["input_values"] = Input(("batch", 4000))
    if "input_features" in parameters:
        bins = next(v for n in ("num_mel_bins", "feature_size", "num_mel_channels") if (v := getattr(config, n, 0)))
        length = 2 * getattr(config, "max_source_positions", 64)
        found["input_features"] = Input(("batch", bins, length))
    if config.is_encoder_decoder and "decoder_input_ids" in parameters:
        found["decoder_input_ids"] = SEQ2SEQ["decoder_input_ids"]
    if not found:
        raise ValueError(f"inputs {', '.join(parameters)} cannot be made up")
    return found


def entry(kind: str) -> Entry:
    """The zoo's line for any model type. Raises: whatever the library does where the small model is none."""
    configuration = CONFIG_MAPPING[kind]
    config = configuration(**small(configuration))
    known: Any = MODEL_MAPPING[configuration]
    forward = (known[0] if isinstance(known, tuple) else known).forward

    def make(attention: str) -> Any:
        fresh = configuration(**small(configuration))
        for part in (fresh, fresh.get_text_config(decoder=True)):
            part.use_cache = False
        return cast(Any, AutoModel).from_config(fresh, attn_implementation=attention)

    return Entry(inputs_of(config, inspect.signature(forward).parameters), make)
