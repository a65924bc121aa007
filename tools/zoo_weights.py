"""Weights that show in the outputs.

At a library's own initialisation softmax is flat, biases are zero and gains are one, and most mistakes of a compiler
cancel.
"""

import torch
from transformers.pytorch_utils import Conv1D


@torch.no_grad()
def make_visible(model: torch.nn.Module, seed: int) -> None:
    """Draw every parameter anew: weights N(0, 1/fan_in), biases N(0, .1²), gains 1 + N(0, .1²), tables N(0, .6²).

    The running variances of batch norms are uniform in [.5, 1.5), their running means N(0, .1²).
    """
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            mean, std = distribution(module, name, parameter)
            parameter.copy_(mean + std * torch.randn(parameter.shape, generator=generator))
        if isinstance(module, torch.nn.BatchNorm2d):
            buffers = dict(module.named_buffers())
            buffers["running_mean"].normal_(0, 0.1, generator=generator)
            buffers["running_var"].uniform_(0.5, 1.5, generator=generator)


def distribution(module: torch.nn.Module, name: str, parameter: torch.Tensor) -> tuple[float, float]:
    """Mean and standard deviation of one parameter of ``module``.

    A vector that starts as ones or zeros is a gain, or what is added to a gain of one, or a bias.
    """
    if name.endswith("bias") and parameter.ndim == 1:
        return 0.0, 0.1
    if parameter.ndim == 1:
        return (1.0 if parameter.mean() > 0.5 else 0.0), 0.1
    if isinstance(module, Conv1D):
        return 0.0, parameter.shape[0] ** -0.5
    if name.endswith("weight") and not isinstance(module, torch.nn.Embedding):
        return 0.0, parameter[0].numel() ** -0.5
    return 0.0, 0.6  # token, position and segment tables: a sum of three has unit variance
