"""Types and shapes of the outputs of one node, from its inputs: one function per operator, in tables by (domain, op).

Soundness comes first: two equal dimensions are equal at run time whenever the model runs. Every name in a dimension
stands for a number ≥ 0. What is not known is None here; `graphopt.ir.infer` gives it a name of its own.
"""
