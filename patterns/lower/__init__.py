"""From meanings to the kernels a target has."""
