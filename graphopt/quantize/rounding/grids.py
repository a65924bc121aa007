"""Grids of the numbers that are rounded."""

from graphopt.rewrite.grids import activation_grid as activation_grid
