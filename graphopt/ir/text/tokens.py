"""Reading the text form token by token."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from graphopt.errors import ModelError
from graphopt.ir.text.writer import NAME

T = TypeVar("T")
Scalar = bool | int | float | str


class Token(NamedTuple):
    kind: str
    text: str
    start: int


_TOKEN = re.compile(
    rf"""(?:\s|\#[^\n]*)*(?:
        (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<quoted>`[^`]*`)
      | (?P<number>-?(?:\d+\.?\d*(?:[eE][+-]?\d+)?|inf|nan)(?!\w))
      | (?P<name>{NAME})
      | (?P<mark>->|.)
      | (?P<end>\Z))""",
    re.VERBOSE,
)


class Tokens:
    """The tokens of `text`, from left to right; errors call it `where` and its first line `line`."""

    def __init__(self, text: str, where: str, line: int) -> None:
        self.text = text
        self.where = where
        self.line = line
        self.tokens: list[Token] = []
        at = 0
        while not self.tokens or self.tokens[-1].kind != "end":
            match = _TOKEN.match(text, at)
            assert match is not None
            kind = match.lastgroup or ""
            self.tokens.append(Token(kind, match[kind], match.start(kind)))
            at = match.end()
        self.at = 0

    @property
    def token(self) -> Token:
        return self.tokens[self.at]

    def error(self, message: str, token: Token | None = None, hint: str = "") -> ModelError:
        start = (token or self.token).start
        row, column = self.text.count("\n", 0, start), start - self.text.rfind("\n", 0, start)
        line = self.text.split("\n")[row].strip()
        return ModelError("GO046", message, f"{self.where}:{self.line + row}:{column}: {line}", hint)

    def wrong(self, wanted: str) -> ModelError:
        return self.error(f"expected {wanted}, found " + (f"'{self.token.text}'" if self.token.text else "the end"))

    def take(self, kind: str, wanted: str) -> Token:
        token = self.token
        if token.kind != kind:
            raise self.wrong(wanted)
        self.at += 1
        return token

    def ahead(self, *words: str, by: int = 0) -> bool:
        token = self.tokens[min(self.at + by, len(self.tokens) - 1)]
        return token.kind in ("mark", "name") and token.text in words

    def accept(self, word: str) -> bool:
        found = self.ahead(word)
        self.at += found
        return found

    def expect(self, word: str) -> None:
        if not self.accept(word):
            raise self.wrong(f"'{word}'")

    def closed(self, close: str) -> bool:
        """Whether a list ends here with `close`; otherwise a comma goes on."""
        if self.accept(close):
            return True
        if not self.accept(","):
            raise self.wrong(f"',' or '{close}'")
        return False

    def several(self, close: str, item: Callable[[], T]) -> list[T]:
        """`[ item { "," item } ] close`"""
        items: list[T] = []
        done = self.accept(close)
        while not done:
            items.append(item())
            done = self.closed(close)
        return items

    def raw(self, *stops: str) -> str:
        """The text up to one of `stops` outside parentheses."""
        start, depth = self.token.start, 0
        while self.token.kind != "end" and (depth or not self.ahead(*stops)):
            depth += self.ahead("(") - self.ahead(")")
            self.at += 1
        return self.text[start : self.token.start].strip()

    def unescaped(self, token: Token) -> str:
        try:
            return str(json.loads(f'"{token.text[1:-1]}"', strict=False))
        except ValueError as error:
            raise self.error("a wrong escape", token) from error

    def name(self, wanted: str = "a name") -> tuple[str, Token]:
        if self.token.kind != "quoted":
            token = self.take("name", wanted)
            return token.text, token
        token = self.take("quoted", wanted)
        return self.unescaped(token), token

    def integer(self) -> int:
        token = self.take("number", "an integer")
        if not token.text.isdecimal():
            raise self.error(f"expected an integer, found '{token.text}'", token)
        return int(token.text)

    def literal(self) -> Scalar | list[Scalar]:
        if not self.accept("["):
            return self.scalar()
        start = self.token
        elements = self.several("]", self.scalar)
        if any(isinstance(x, float) for x in elements) and not any(isinstance(x, str | bool) for x in elements):
            return [float(x) for x in elements]
        if len({type(x) for x in elements}) > 1:
            raise self.error("the elements of a list are of one kind", start)
        return elements

    def scalar(self) -> Scalar:
        if self.ahead("true", "false"):
            return self.take("name", "a constant").text == "true"
        if self.token.kind == "string":
            return self.unescaped(self.take("string", "a constant"))
        text = self.take("number", "a constant").text
        return int(text) if text.lstrip("-").isdecimal() else float(text)
