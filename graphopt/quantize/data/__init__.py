"""Calibration data: where it comes from, whether it fits the model, what of it is padding."""
