"""The main job: rewrite a model, check every region that changed, take back what is guilty, write."""

from __future__ import annotations

import os

import onnx

Source = str | os.PathLike[str] | onnx.ModelProto

ASSUMPTIONS = ("no-empty-rows", "right-padding")
"""The promises about inputs that a rule may rely on."""

_ROUNDS = 8
"""How often guilty sites are taken back before the check is given up."""
