"""Numbers on grids: how weights and activations are rounded, and what makes good for it."""
