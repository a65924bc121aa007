"""Half precision: weights and activations as float16, and in float32 what float16 does not hold."""
