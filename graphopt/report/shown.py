"""What reaches a terminal: names of a model may hold escape sequences, which it would obey."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

from graphopt.errors import printable


@dataclass(frozen=True)
class Shown:
    """`content`, with nothing in its text but what can be seen."""

    content: RenderableType

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for segment in console.render(self.content, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))
