"""What hosts answer to questions, in the column `answer` of a question's row.

One rule: a text that is no answer is an answer with a problem, never an error.
"""

from __future__ import annotations

from typing import ClassVar, TypeVar

import msgspec

S = TypeVar("S", bound="HostReply")

MAX_ASKED = 128  # questions at once, to all hosts together


class HostReply(msgspec.Struct, frozen=True, kw_only=True):
    """problem: the reason for no answer; else empty."""

    problem: str = ""
    MAX_BYTES: ClassVar[int] = 1 << 20  # of the text
    TOO_LONG: ClassVar[str] = "the answer is too long"

    def encode(self) -> str:
        """The text for the row."""
        text = msgspec.json.encode(self).decode()
        return text if len(text) <= self.MAX_BYTES else type(self)(problem=self.TOO_LONG).encode()

    @classmethod
    def decode(cls: type[S], text: str) -> S:
        """The answer of a row. An agent that writes nonsense has given no answer."""
        try:
            return msgspec.json.decode(text, type=cls)
        except (msgspec.MsgspecError, UnicodeError) as error:
            return cls(problem=f"the agent's answer is no answer: {error}")
