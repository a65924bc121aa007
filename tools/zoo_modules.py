"""Models of the zoo that are written by hand, of torch's own layers, and a decoder with its cache in the open."""

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn
from transformers import DynamicCache


def flatten(outputs: Any, name: str = "output") -> dict[str, Tensor]:
    """The tensors of a model's outputs by name, ``text_model_output.pooler_output`` where outputs are nested."""
    if isinstance(outputs, Tensor):
        return {name: outputs}
    if isinstance(outputs, (tuple, list)):
        outputs = {str(number): part for number, part in enumerate(outputs)}
    if not isinstance(outputs, Mapping):
        return {}
    prefix = "" if name == "output" else f"{name}."
    return {key: leaf for part, value in outputs.items() for key, leaf in flatten(value, f"{prefix}{part}").items()}


class WithPast(nn.Module):
    """A decoder whose cache is inputs and outputs: keys and values (B, K, P, D) in, (B, K, P + S, D) out."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **past: Tensor) -> dict[str, Tensor]:
        """Hidden states (B, S, W) and the grown cache; ``past_key_values.<layer>.key`` in, ``present.…`` out."""
        cache = DynamicCache()
        for layer in range(len(past) // 2):
            key, value = (past[f"past_key_values.{layer}.{part}"] for part in ("key", "value"))
            cache.update(key, value, layer)
        hidden = self.model(input_ids, attention_mask=attention_mask, past_key_values=cache, use_cache=True)[0]
        outputs = {"last_hidden_state": hidden}
        for number, grown in enumerate(cast(Any, cache.layers)):
            outputs |= {f"present.{number}.key": grown.keys, f"present.{number}.value": grown.values}
        return outputs


class SelfAttention(nn.Module):
    """Self attention by ``nn.MultiheadAttention``; asked for its weights, torch computes them step by step."""

    def __init__(self, attention: str) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(64, 4, batch_first=True)
        self.norm = nn.LayerNorm(64)
        self.weights = attention == "eager"

    def forward(self, x: Tensor) -> Tensor:
        """(B, S, 64) to (B, S, 64)."""
        y: Tensor = self.attention(x, x, x, need_weights=self.weights)[0]
        return self.norm(x + y)  # type: ignore[no-any-return]


def encoder(*, norm_first: bool) -> nn.Module:
    """Two layers of torch's own transformer encoder."""
    layer = nn.TransformerEncoderLayer(64, 4, 128, activation="gelu", batch_first=True, norm_first=norm_first)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


class Cnn(nn.Module):
    """Convolutions with the norms and activations of image models, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()),
            *(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.SiLU()),
            *(nn.Conv2d(32, 32, 1), nn.GroupNorm(8, 32), nn.Hardswish(), nn.Conv2d(32, 32, 1), nn.Mish()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)),
        )

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, 10)."""
        return self.body(pixel_values)  # type: ignore[no-any-return]


class MixerBlock(nn.Module):
    """Mixes over the tokens, then over the channels, each after a norm and around a residual."""

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.token_norm, self.channel_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.channels = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """(B, tokens, width) to the same."""
        x = x + self.tokens(self.token_norm(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.channel_norm(x))  # type: ignore[no-any-return]


class Mixer(nn.Module):
    """A small MLP-mixer over the 16 patches of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 64, 8, 8)
        self.blocks = nn.Sequential(MixerBlock(16, 64), MixerBlock(16, 64))
        self.norm = nn.LayerNorm(64)
        self.head = nn.Linear(64, 10)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(B, 3, 32, 32) to (B, 10)."""
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.blocks(x)).mean(1))  # type: ignore[no-any-return]
