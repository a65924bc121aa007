from graphopt.ir import Value
from graphopt.rewrite import Attr, Attrs, Builder, Expr, Ops, Reason, Rule

_PARAMETERS = {
    **dict.fromkeys(("Relu", "Tanh", "Sigmoid", "Softplus", "Softsign"), ()),
    "LeakyRelu": ("alpha",),
    "Elu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
_OF_GEMM = {"activation_alpha": "alpha", "activation_beta": "beta"}


class ActivationFromContrib(Rule):
    """A convolution or matrix product and its activation, apart.

    Why: each is seen by the rules about it; what the target has a kernel for is fused again.
    Before: com.microsoft FusedConv(x, w, b, activation="Relu") or FusedGemm(x, w, b, activation="Relu")
    After: Relu(Conv(x, w, b)) or Relu(Gemm(x, w, b))
    Safety: the activation is known, and all its parameters are given. A sum inside of FusedConv makes no match.
    """

    stage = "recover"

    def pattern(self, op: Ops, x: Value, w: Value, name: Attr, others: Attrs, b: Value | None = None) -> Expr:
        conv = op.ms.FusedConv(x, w, b, activation=name, others=others)
        return conv | op.ms.FusedGemm(x, w, b, activation=name, others=others)

    def where(self, x: Value, name: str | None, others: Attrs, root: Value) -> Reason:
        if name not in _PARAMETERS:
            return f"the activation is {name}"
        given = len(_split(others)[1])
        return given == len(_PARAMETERS[name]) or f"{name} has {given} parameters"

    def rewrite(self, op: Builder, x: Value, w: Value, b: Value | None, name: str, others: Attrs, root: Value) -> Value:
        plain, parameters = _split(others)
        y = op.Conv(x, w, b, **plain) if root.node.op == "FusedConv" else op.Gemm(x, w, b, **plain)
        if name == "Clip":
            return op.Clip(y, *(op.const(number, like=y) for number in parameters))
        named = dict(zip(_PARAMETERS[name], parameters, strict=True))
        activated: Value = getattr(op, name)(y, **named)
        return activated


def _split(others: Attrs) -> tuple[Attrs, list[float]]:
    """The attributes of the operation, and the parameters of its activation in order."""
    plain = {name: value for name, value in others.items() if not name.startswith("activation")}
    parameters = others.get("activation_params") or [others[name] for name in _OF_GEMM if name in others]
    return plain, parameters
