"""The rules: one rule, one file, one page of documentation."""

if __name__ != "graphopt.patterns":
    raise ImportError(f"import graphopt.patterns, not {__name__}: under a second name every rule would register twice")
