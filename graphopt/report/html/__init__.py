"""The report of `quantize` as one page that needs nothing but a browser: no network, no font, no library."""

from graphopt.report.html.page import page, write

__all__ = ["page", "write"]
