"""Inputs that mean something: what each input is taken for, sizes for it, and feeds that reach what may be wrong."""
