"""The zoo of exports: its feeds, what it counts as ideal, and that its near misses are misses."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402
from zoo_ideal import count  # noqa: E402
from zoo_inputs import Input, cases, mask  # noqa: E402
from zoo_near import BETWEEN, BLENDS, MASKED, Blend  # noqa: E402


class Root(nn.Module):
    """A norm by hand, with a gain, or with what is added to a gain of one."""

    def __init__(self, offset: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((8,), 0.3))
        self.offset = offset

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * (self.offset + self.weight)


class Elementwise(nn.Module):
    """Any function of one tensor as a leaf."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def apply_rotary(q: torch.Tensor, k: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return q.flip(-1), k.flip(-1)


class Attend(nn.Module):
    """One attention by its parts and one by torch's function, on rotated queries and keys."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k = apply_rotary(x, x)
        y = (q @ k.transpose(-1, -2)).softmax(-1) @ x
        return functional.scaled_dot_product_attention(y, y, y)


def ideal(*layers: nn.Module) -> dict[str, int]:
    with torch.no_grad():
        return count(nn.Sequential(*layers), {"input": torch.randn(2, 5, 8)})


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        pytest.param(
            [nn.LayerNorm(8), nn.GELU(), nn.SiLU()], {"Gelu": 1, "LayerNormalization": 1, "Swish": 1}, id="torch"
        ),
        pytest.param([Root(0.0), Root(1.0)], {"RMSNormalization": 2}, id="norms by hand"),
        pytest.param([Root(0.5)], {}, id="no norm"),
        pytest.param([Elementwise(lambda x: x * torch.sigmoid(1.702 * x))], {"Swish": 1}, id="quick"),
        pytest.param(
            [Elementwise(lambda x: 0.5 * x * (1 + torch.tanh((2 / torch.pi) ** 0.5 * (x + 0.044715 * x**3))))],
            {"Gelu": 1},
            id="tanh",
        ),
        pytest.param([nn.ReLU(), nn.Dropout(), nn.Linear(8, 8)], {}, id="nothing"),
        pytest.param([Attend()], {"Attention": 2, "RotaryEmbedding": 2}, id="attention"),
    ],
)
def test_what_runs_is_counted(layers: list[nn.Module], expected: dict[str, int]) -> None:
    assert ideal(*(layer.eval() for layer in layers)) == expected


def test_a_masked_model_is_fed_every_kind_of_mask_at_two_sizes() -> None:
    feeds = dict(cases({"x": Input(("batch", "sequence", 4)), "m": Input(("batch", "sequence"), "mask")}))
    assert [name for name in feeds if name.startswith("3x37")] == [
        "3x37.full",
        "3x37.right",
        "3x37.left",
        "3x37.hole",
        "3x37.empty",
    ]
    assert len(feeds) == 10
    assert feeds["2x16.left"]["x"].shape == (2, 16, 4)


def test_a_fixed_axis_keeps_one_size() -> None:
    shapes = [tuple(feed["x"].shape) for _, feed in cases({"x": Input(("batch", "sequence"))}, ("sequence",))]
    assert shapes == [(2, 37), (3, 37)]


def test_masks_hide_what_they_say() -> None:
    assert mask((2, 8), "left").tolist() == [[0, 0, 1, 1, 1, 1, 1, 1], [0, 0, 0, 1, 1, 1, 1, 1]]
    assert mask((2, 8), "empty").tolist() == [[0] * 8, [1] * 5 + [0] * 3]


@pytest.mark.parametrize("name", [*BLENDS, *MASKED])
def test_a_near_attention_is_none(name: str) -> None:
    torch.manual_seed(0)
    model = Blend((BLENDS | MASKED)[name])
    nn.init.normal_(model.heads)
    x, keep = torch.randn(2, 6, 64) * 3, torch.tensor([[1] * 4 + [0] * 2, [1] * 6])
    with torch.no_grad():
        found = model(x, keep) if name in MASKED else model(x)
        for heads in (None, keep):
            allowed = None if heads is None else heads[:, None, None, :] > 0
            model.mix = lambda q, k, v, keep=None, allowed=allowed: functional.scaled_dot_product_attention(
                q, k, v, allowed
            )
            assert (found - model(x)).abs().max() > 0.01


@pytest.mark.parametrize("name", BETWEEN)
def test_a_near_norm_or_activation_is_none(name: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6, 64) + 0.3
    real = [
        functional.layer_norm(x, (64,)),
        functional.rms_norm(x, (64,)),
        functional.gelu(x),
        functional.gelu(x, approximate="tanh"),
        functional.silu(x),
    ]
    assert all((BETWEEN[name](x) - other).abs().max() > 2e-3 for other in real)
