"""The short text form of a model: `parse` reads it, `to_text` writes it.

    opset 20, com.microsoft 1
    (x: float32[B, S, 64], c: bool[]) -> (y, h: float32[B, S, 64]) {
      w = float32[64, 64] random(1)                   # seeded weights
      h = MatMul(x, w)
      e = Erf(Div(h, 1.4142135))                      # calls nest
      s, t = Split(h, axis=-1, num_outputs=2)
      g = com.microsoft.BiasGelu(h, float32[64] random(2))
      r = Clip(h, _, 6.0)                             # _ is an empty slot
      y = If(c, then_branch=() -> (p) { p = Neg(h) }, else_branch=() -> (q) { q = Abs(g) })
    }

Line breaks and spaces do not matter, `#` starts a comment. A value is defined once, before it is used. Grammar:

    model     = [ "opset" INT { "," domain INT } ] scope { "function" domain "." op [ ":" overload ] scope }
    scope     = "(" [ param { "," param } ] ")" "->" "(" [ result { "," result } ] ")" "{" { statement } "}"
    param     = name [ ":" type ] | name "=" tensor      the latter is an overridable initializer
    result    = name [ ":" type ]                        any value of the scope
    statement = target { "," target } "=" call
              | name "=" tensor                          an initializer with a name
    target    = name [ ":" type ] | "_"
    call      = [ domain "." ] op [ ":" overload ] "(" [ operand { "," operand } ] { "," key "=" attribute } ")"
    operand   = name | call | tensor | "_"
    attribute = literal | type content | scope
              | dtype                                    its number: Cast(x, to=float16)
              | "@" name                                 what the caller of the enclosing function gives
    tensor    = literal | type content                   no brackets in the type: a scalar
    content   = scalar                                   each element is that:      float16 0.5    float32[1, 64] 0
              | "{" [ scalar { "," scalar } ] "}"        the elements, row by row:  int32[2, 2] {1, 2, 3, 4}
              | "random" "(" seed ")"                    floats: normal, std 1/√fan-in (vectors: 1);
                                                         bool, int8 and uint8: uniform
              | "data" "(" [ digest ] ")"                numbers that are not written down: cannot be computed with
    literal   = scalar | "[" [ scalar { "," scalar } ] "]"
                                                         as a tensor, 3 and [1, 2] are int64, 0.5 and [1.0, 2] float32
    scalar    = 3 | -0.5 | 1e-5 | inf | -inf | nan | true | false | "text"
    type      = dtype [ "[" [ dim { "," dim } ] "]" ]    float32[]: a scalar; float32: unknown rank; ?: unknown dtype
    dim       = 64 | N | 2*N + 1 | ?
    name      = letters, digits, `_`, `.`, `/`, not beginning with digit or dot; anything in backquotes: `onnx::Mul_2`

Parameters of a function that have a literal as default, and those written `name = @`, are its attributes.
"""

from graphopt.ir.text.parser import parse
from graphopt.ir.text.writer import to_text

__all__ = ["parse", "to_text"]
