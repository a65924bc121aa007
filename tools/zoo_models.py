"""The models of the zoo: what builds each, and the inputs its exports take."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from transformers import AutoConfig, AutoModel
from zoo_inputs import Input
from zoo_modules import Cnn, Mixer, SelfAttention, WithPast, encoder
from zoo_near import BETWEEN, BLENDS, MASKED, Between, Blend

ATTENTIONS = ("eager", "sdpa")


@dataclass(frozen=True)
class Entry:
    """One model.

    Its inputs, what builds it for an attention implementation, which implementations it has, and the named axes that
    a TorchScript export keeps at the size of its example. ``ideal`` says how often a meaning stands in it where
    counting what runs would not; ``alone`` which of them are left as they are, and why.
    """

    inputs: Mapping[str, Input]
    make: Callable[[str], torch.nn.Module]
    attentions: tuple[str, ...] = ATTENTIONS
    fixed: tuple[str, ...] = ()
    ideal: Mapping[str, int] = field(default_factory=dict)
    alone: Mapping[str, str] = field(default_factory=dict)


def hub(
    kind: str,
    inputs: Mapping[str, Input],
    *changes: Mapping[str, Any],
    attentions: tuple[str, ...] = ATTENTIONS,
) -> Entry:
    """A model type of transformers, with what differs from its default configuration."""

    def make(attention: str) -> torch.nn.Module:
        config = AutoConfig.for_model(kind, **{name: value for part in changes for name, value in part.items()})
        for part in (config, config.get_text_config(decoder=True)):
            part.use_cache = False
        model: torch.nn.Module = cast(Any, AutoModel).from_config(config, attn_implementation=attention)
        return model

    return Entry(inputs, make, attentions)


def cached(entry: Entry, heads: int, layers: int = 2, size: int = 16) -> Entry:
    """A decoder with its cache of ``heads`` key heads of ``size`` as inputs and outputs."""
    part = Input(("batch", heads, "past", size))
    past = {f"past_key_values.{layer}.{name}": part for layer in range(layers) for name in ("key", "value")}
    inputs = {"input_ids": TEXT["input_ids"], "attention_mask": Input(("batch", "total"), "mask")} | past
    return replace(entry, inputs=inputs, make=lambda attention: WithPast(entry.make(attention)))


def near(inputs: Mapping[str, Input], make: Callable[[], torch.nn.Module]) -> Entry:
    """A near miss: a softmax that runs in it makes no attention."""
    return Entry(inputs, lambda _: make(), ("eager",), ideal={"Attention": 0})


TEXT = {"input_ids": Input(("batch", "sequence"), "ids"), "attention_mask": Input(("batch", "sequence"), "mask")}
PAIR = TEXT | {"token_type_ids": Input(("batch", "sequence"), "segments")}
SEQ2SEQ = TEXT | {"decoder_input_ids": Input(("batch", "target"), "ids")}
PIXELS = {"pixel_values": Input(("batch", 3, 32, 32))}
SOURCE = {"src": Input(("batch", "sequence", 64)), "src_key_padding_mask": Input(("batch", "sequence"), "hides")}
HIDDEN = {"x": Input(("batch", "sequence", 64))}
MASKED_HIDDEN = HIDDEN | {"keep": Input(("batch", "sequence"), "mask")}
SPEECH = {
    "input_features": Input(("batch", 20, 64)),
    "decoder_input_ids": Input(("batch", "target"), "ids"),
    "decoder_attention_mask": Input(("batch", "target"), "mask"),
}

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
FFN = {"intermediate_size": 128}
TINY = SMALL | {"vocab_size": 128}
BERT = TINY | FFN | {"max_position_embeddings": 64}
IMAGE = SMALL | FFN | {"image_size": 32, "patch_size": 8}
GROUPED = BERT | {"num_key_value_heads": 2, "head_dim": 16}
SWIN = {"image_size": 32, "patch_size": 2, "embed_dim": 32, "depths": [2, 2], "num_heads": [2, 4], "window_size": 4}
GEMMA = {"query_pre_attn_scalar": 32, "attn_logit_softcapping": 5.0, "sliding_window": 8}
WINDOWS = {"layer_types": ["full_attention", "sliding_attention"]}
DEBERTA = {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "position_buckets": 8, "share_att_key": True}
T5 = {"d_model": 64, "d_kv": 16, "d_ff": 128, "num_layers": 2, "num_heads": 4, "vocab_size": 128}
LAYERS = {f"{side}_{what}": n for side in ("encoder", "decoder") for what, n in (("layers", 2), ("attention_heads", 4))}
BART = LAYERS | {"d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128, "vocab_size": 128}
WHISPER = {"num_mel_bins": 20, "max_source_positions": 32, "max_target_positions": 64}
TOKENS = {"bos_token_id": 1, "eos_token_id": 127, "pad_token_id": 0}
WIDE_LLAMA = {"hidden_size": 1024, "intermediate_size": 2816, "num_hidden_layers": 4, "num_attention_heads": 16}
CLIP = {
    "text_config": BERT | TOKENS | {"projection_dim": 32},
    "vision_config": IMAGE | {"projection_dim": 32},
    "projection_dim": 32,
}

DECODERS = {
    "gpt2-tiny": hub("gpt2", TEXT, TINY, {"n_positions": 64}),
    "gpt_neox-tiny": hub("gpt_neox", TEXT, BERT),
    "llama-tiny": hub("llama", TEXT, GROUPED),
    "mistral-tiny": hub("mistral", TEXT, GROUPED, {"sliding_window": 8}),
    "qwen2-tiny": hub("qwen2", TEXT, GROUPED),
    "qwen3-tiny": hub("qwen3", TEXT, GROUPED),
    "gemma2-tiny": hub("gemma2", TEXT, GROUPED, GEMMA, attentions=("eager",)),
    "phi-tiny": hub("phi", TEXT, BERT),
    "falcon-tiny": hub("falcon", TEXT, TINY, {"ffn_hidden_size": 128}),
}
SEQUENCES = {
    "t5-tiny": hub("t5", SEQ2SEQ, T5),
    "bart-tiny": hub("bart", SEQ2SEQ, BART, {"max_position_embeddings": 64}),
    "whisper-tiny": hub("whisper", SPEECH, BART, WHISPER, TOKENS),
}
ENCODERS = {
    "bert-tiny": hub("bert", PAIR, BERT),
    "distilbert-tiny": hub("distilbert", TEXT, TINY, {"hidden_dim": 128, "max_position_embeddings": 64}),
    "roberta-tiny": hub("roberta", TEXT, BERT),
    "electra-tiny": hub("electra", PAIR, BERT, {"embedding_size": 32}),
    "xlm-roberta-tiny": hub("xlm-roberta", TEXT, BERT),
    "albert-tiny": hub("albert", PAIR, BERT, {"embedding_size": 32}),
    "mpnet-tiny": hub("mpnet", TEXT, BERT, attentions=("eager",)),
    "deberta-v2-tiny": hub("deberta-v2", PAIR, BERT, DEBERTA, {"type_vocab_size": 2}, attentions=("eager",)),
    "modernbert-tiny": hub("modernbert", TEXT, BERT, TOKENS, WINDOWS, {"local_attention": 8}),
}
VISION = {
    "vit-tiny": hub("vit", PIXELS, IMAGE),
    "deit-tiny": hub("deit", PIXELS, IMAGE),
    "swin-tiny": hub("swin", PIXELS, SWIN),
    "clip-tiny": replace(hub("clip", TEXT | PIXELS, CLIP), ideal={"RMSNormalization": 2}),  # x/‖x‖, by no module
    "dinov2-tiny": hub("dinov2", PIXELS, SMALL, {"image_size": 32, "patch_size": 8, "mlp_ratio": 2}),
}
TORCH = {
    "encoder-post-tiny": Entry(SOURCE, lambda _: encoder(norm_first=False), ("sdpa",), fixed=("sequence",)),
    "encoder-pre-tiny": Entry(SOURCE, lambda _: encoder(norm_first=True), ("sdpa",), fixed=("sequence",)),
    "mha-tiny": Entry(HIDDEN, SelfAttention, fixed=("sequence",)),
    "cnn-tiny": Entry(PIXELS, lambda _: Cnn(), ("eager",)),
    "mixer-tiny": Entry(PIXELS, lambda _: Mixer(), ("eager",)),
}
BASE = {
    "bert-base": hub("bert", PAIR),
    "distilbert-base": hub("distilbert", TEXT),
    "roberta-base": hub("roberta", TEXT),
    "electra-base": hub("electra", PAIR),
    "gpt2-base": hub("gpt2", TEXT),
    "vit-base": hub("vit", {"pixel_values": Input(("batch", 3, 224, 224))}),
    "llama-base": hub("llama", TEXT, WIDE_LLAMA, {"num_key_value_heads": 4, "head_dim": 64}),
}
KEY_HEADS = dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "gemma2"), 2) | {"falcon": 1}
KINDS = {name.removesuffix("-tiny"): entry for name, entry in DECODERS.items()}
CACHED = {f"{kind}-past-tiny": cached(entry, KEY_HEADS.get(kind, 4)) for kind, entry in KINDS.items()}
NEAR = {
    **{f"near-{name}-tiny": near(HIDDEN, partial(Blend, mix)) for name, mix in BLENDS.items()},
    **{f"near-{name}-tiny": near(MASKED_HIDDEN, partial(Blend, mix)) for name, mix in MASKED.items()},
    **{f"near-{name}-tiny": near(HIDDEN, partial(Between, function)) for name, function in BETWEEN.items()},
}

GROUPS = {
    "decoders": DECODERS,
    "seq2seq": SEQUENCES,
    "encoders": ENCODERS,
    "vision": VISION,
    "torch": TORCH,
    "base": BASE,
    "cached": CACHED,
    "near": NEAR,
}
ZOO = {name: entry for group in GROUPS.values() for name, entry in group.items()}
OPSETS = {"ts": 14, "dynamo": 23}
"""A second opset of each exporter, for the models in ``WIDE``."""
WIDE = tuple(f"{kind}-tiny" for kind in ("bert", "vit", "gpt2", "llama", "t5", "whisper"))
"""Models that are exported at a second opset and in float16 as well."""
