"""Keeps a caller's text plain text: nothing in it can become a control token.

Before a template runs, the characters that control tokens begin and end with are exchanged, in the
caller's text alone, for stand-ins; afterwards every control token that still stands in the rendered
text was written by the template. Then the stand-ins are exchanged back and the pieces between are
tokenised without any control tokens. Knows strings only, neither templates nor token ids.

Why it holds. A stand-in is a lone surrogate: it is in no valid text, so in no request, template or
token, and needs no search for a free character. Take a control token that occurs in the rendered
text. Its first and its last character are not the caller's (those are exchanged), so both are the
template's. If a character between them were the caller's, the constants of the template that the
token begins in would end with a proper prefix of it. Where any do, as in a template that writes a
tag around a name, every character that occurs in a control token is exchanged, so that none of the
caller's can be part of one at all. Left as they are even then: words that do not go on where such a
prefix stops, for templates look up a schema's keys. This takes for granted that a template cuts no
word into pieces.
The exchange is one for one: lengths, blanks and line ends, which templates look at, stay as they
are. Unicode normalisation runs only after the exchange back, in the tokenizer. Numbers are never
exchanged: a template would have to write the rest of a control token around one.
"""

import re
from collections.abc import Iterable, Iterator, Sequence

from qwen_openai.errors import InvalidRequest, StartupError

# Low surrogates, so that no two in a row can be taken for one character.
_FIRST_STAND_IN = 0xDE00
_LAST_STAND_IN = 0xDFFE
_WORD = re.compile(r"[\w.$-]+", re.ASCII)
# Put behind a text that the model is to go on from; tells where to cut.
END = "\udfff"


class Inert:
    """The exchange for one vocabulary and one template. Stateless."""

    def __init__(self, tokens: Sequence[str], constants: Iterable[str]) -> None:
        """``tokens`` are all added tokens; ``constants`` all texts in the template itself.

        Raises StartupError when the tokens use more characters than there are stand-ins.
        """
        ends = {token[0] for token in tokens} | {token[-1] for token in tokens}
        self._ends = frozenset(ends)
        self._rests = _rests(tokens, frozenset(constants))
        letters = set("".join(tokens)) if self._rests else ends
        numbers = range(_FIRST_STAND_IN, _LAST_STAND_IN)
        self._pairs = tuple(
            (letter, chr(number)) for letter, number in zip(sorted(letters), numbers, strict=False)
        )
        if len(self._pairs) < len(letters):
            raise StartupError(
                f"The model's control tokens use {len(letters)} different characters: its messages"
                " cannot be kept apart from them.",
                fix="Use another model file.",
            )
        longest_first = sorted(tokens, key=len, reverse=True)
        self._tokens = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def cover(self, text: str, param: str = "messages") -> str:
        """Return ``text`` with stand-ins.

        Raises InvalidRequest, naming ``param``, when it is no valid Unicode.
        """
        refuse_surrogates(text, param)
        if self._rests and self._is_harmless(text):
            return text
        for letter, stand_in in self._pairs:
            text = text.replace(letter, stand_in)
        return text

    def _is_harmless(self, text: str) -> bool:
        """Tell whether ``text`` is a word that goes on no token which the template has begun."""
        return (
            _WORD.fullmatch(text) is not None
            and self._ends.isdisjoint(text)
            and not any(rest.startswith(text) for rest in self._rests)
        )

    def uncover(self, text: str) -> str:
        """Return ``text`` as it was before `cover`."""
        for letter, stand_in in self._pairs:
            text = text.replace(stand_in, letter)
        return text

    def split(self, rendered: str) -> Iterator[tuple[str, str | None]]:
        """Part a rendered text: plain text (perhaps empty) and the control token behind it.

        The last pair has no token.
        """
        position = 0
        for match in self._tokens.finditer(rendered):
            yield self.uncover(rendered[position : match.start()]), match.group()
            position = match.end()
        yield self.uncover(rendered[position:]), None


def refuse_surrogates(text: str, param: str = "messages") -> None:
    """Raise InvalidRequest, naming ``param``, when ``text`` is no valid Unicode."""
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InvalidRequest(
            f"A text in {param} holds a lone surrogate, U+{ord(text[exc.start]):04X}, at character"
            f" {exc.start}: it is not valid Unicode text. Remove or replace it.",
            param=param,
        ) from exc


def _rests(tokens: Sequence[str], constants: frozenset[str]) -> frozenset[str]:
    """Return what is missing of a token wherever a caller's text may follow its beginning.

    The beginning is the end of one constant, with any number of whole ones behind it.
    """
    whole = [constant for constant in constants if constant]
    rests = set()
    for token in tokens:
        inner = range(1, len(token))
        stops = {at for at in inner if any(part.endswith(token[:at]) for part in whole)}
        for at in inner:
            if at in stops:
                stops |= {at + len(part) for part in whole if token.startswith(part, at)}
        rests |= {token[at:] for at in stops if at < len(token)}
    return frozenset(rests)
