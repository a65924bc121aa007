"""Comparing results: numbers against a measured floor, all else exactly."""
