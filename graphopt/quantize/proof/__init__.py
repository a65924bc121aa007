"""Which kernels really run the products of a written model, and why others do not."""
