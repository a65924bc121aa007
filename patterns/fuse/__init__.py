"""Algebra across operations, in standard and ir operations only."""
