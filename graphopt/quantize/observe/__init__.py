"""What activations are: statistics in one pass over the data, and the range that a grid is to span."""
