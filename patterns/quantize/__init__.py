"""Products in integers, as a plan decided: where to quantize, and where to go back."""
