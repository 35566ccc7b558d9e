"""JSON files larger than memory: the items of their lists, one at a time."""

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from amg.errors import ConfigError

_CHUNK_BYTES = 2**20
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODE = json.JSONDecoder().raw_decode


class JsonItems:
    """Reads through a JSON file once; every method raises ConfigError for what is no JSON."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._at, self._is_whole = "", 0, False

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            assert match is not None
            self._at = match.end()
            if self._at < len(self._text) or not self._read():
                return self._text[self._at : self._at + 1]

    def members(self) -> Iterator[str]:
        """The names of an object's members; each value is taken before the next name."""
        self._expect("{")
        while self.peek() != "}":
            name = self.value()
            self._expect(":")
            yield name
            self._end_of_item("}")
        self._expect("}")

    def items(self) -> Iterator[Any]:
        """The items of a list."""
        self._expect("[")
        while self.peek() != "]":
            yield self.value()
            self._end_of_item("]")
        self._expect("]")

    def skip(self) -> None:
        """Pass over a value; of a list no more than one item is in memory."""
        if self.peek() != "[":
            self.value()
            return
        for _ in self.items():
            pass

    def value(self) -> Any:
        """A whole value."""
        self.peek()
        while True:
            try:
                value, end = _DECODE(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if not self._read():
                    raise ConfigError(f"damaged JSON: {error}") from error
                continue
            if end < len(self._text) or not self._read():  # else a number may go on
                self._at = end
                return value

    def _end_of_item(self, end: str) -> None:
        if self.peek() != end:
            self._expect(",")

    def _expect(self, sign: str) -> None:
        found = self.peek()
        if found != sign:
            raise ConfigError(f"damaged JSON: expected {sign!r}, found {found!r}")
        self._at += 1

    def _read(self) -> bool:
        """More text, twice as much each time that one value needs it; False at the end."""
        if self._is_whole:
            return False
        rest = self._text[self._at :]
        data = self._file.read(max(_CHUNK_BYTES, len(rest)))
        self._is_whole = not data
        try:
            self._text, self._at = rest + self._decoder.decode(data, self._is_whole), 0
        except UnicodeDecodeError as error:
            raise ConfigError(f"no text in UTF-8: {error.reason}") from error
        return not self._is_whole
