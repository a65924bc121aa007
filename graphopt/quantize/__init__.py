"""Quantization: calibration, grids, what each product becomes, and the proof that integer kernels run it."""
