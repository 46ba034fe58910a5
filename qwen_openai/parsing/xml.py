"""Calls in XML-like tags, as Qwen3-Coder, Qwen3.5 and later write them:
`<tool_call><function=f><parameter=p>value</parameter></function></tool_call>`.

Sans I/O. The format is that of the models' chat templates; values become JSON as the parameters'
schemas say (`coerce`). What is tolerated is in docs/parsing.md.
"""

import re
from collections.abc import Callable, Iterable, Mapping

from qwen_openai.core import Tool
from qwen_openai.parsing.calls import CallArguments, CallStart, Piece, Reading, joined
from qwen_openai.parsing.coerce import coerced, quoted, value_types
from qwen_openai.parsing.tagged import CLOSER, OPENER, TaggedCalls

_FUNCTION = "<function="
_PARAMETER = "<parameter="
_FUNCTION_END = "</function>"
_PARAMETER_END = "</parameter>"
_LONGEST_NAME = 256
# The blanks that may stand between the tags behind a value.
_GAP = 64

_NAME = re.compile(rf"([^<>\n]{{1,{_LONGEST_NAME}}})>")
# The end of a value, with the line end before it that is no part of it. Its tag alone may well be
# in a value, in somebody's XML: what must follow tells them apart.
_VALUE_END = re.compile(
    rf"(?:\r?\n)?(?:</parameter>\s{{0,{_GAP}}}(?=<parameter=|</function>|</tool_call>)"
    rf"|(?=</function>\s{{0,{_GAP}}}</tool_call>))"
)
_CUT_VALUE_END = re.compile(r"(?:\r?\n)?</(?:parameter|function)>\s*(?:<.*)?\Z|\r?\n\Z")
_MAYBE_END = re.compile(r"\r?\n|\r|<")
_LONGEST_END = 2 + len(_PARAMETER_END) + _GAP + len(CLOSER)
# What may follow the tags that can end a value.
_FOLLOWERS = {
    _PARAMETER_END: (_PARAMETER, _FUNCTION_END, CLOSER),
    _FUNCTION_END: (CLOSER,),
}


def xml_calls(
    tools: Iterable[Tool], *, parallel: bool = True, leading: bool = False
) -> TaggedCalls:
    """Return the parser of such calls; `tools` may be called. Without `parallel` the first call is
    the end; with `leading` they begin the answer, or are text."""
    known = {tool.name: tool.parameters or {} for tool in tools}
    return TaggedCalls(
        (OPENER, _FUNCTION), lambda: XmlCall(known), parallel=parallel, leading=leading
    )


class XmlCall:
    """Reads one `<function=f>...</function>`; its arguments come out as valid JSON.

    It begins with its first parameter or its end; what is wrong before makes it fail, afterwards
    everything is part of a value. Of a parameter that comes twice the first counts.
    """

    def __init__(self, tools: Mapping[str, Mapping[str, object]]) -> None:
        """`tools` are the names that may be called, each with its parameters' schema."""
        self.state = Reading.OPEN
        self.begun = False
        self._tools = tools
        self._name = ""
        self._out: list[Piece] = []
        self._step: Callable[[str, int], int] = self._read_function
        # The parameters so far; of the one being read, its types and what waits for its end.
        self._seen: set[str] = set()
        self._types: frozenset[str] = frozenset()
        self._whole: list[str] | None = None
        self._dropped = False

    def feed(self, text: str, place: int) -> int:
        """See `calls.CallBody`."""
        while place < len(text) and self.state is Reading.OPEN:
            before, step = place, self._step
            place = step(text, place)
            if place == before and self._step == step:
                break
        return place

    def take(self) -> list[Piece]:
        """See `calls.CallBody`."""
        out, self._out = self._out, []
        return joined(out)

    def end(self, rest: str, cut: bool) -> None:
        """A call that has begun is one; unless its length cut it, its JSON is closed."""
        if not self.begun:
            self.state = Reading.FAILED
            return
        self.state = Reading.DONE
        if self._step in (self._read_value, self._begin_value):
            ending = _CUT_VALUE_END.search(rest)
            tagged = ending is not None and "</" in ending[0]
            if ending is not None and (tagged or not cut):
                rest = rest[: ending.start()]
            self._say_value(rest)
            if tagged or not cut:
                self._close_value()
        if not cut:
            self._close_arguments()

    # Each of these reads at a place in one state and returns the next place.

    def _read_function(self, text: str, place: int) -> int:
        place = _skip_blanks(text, place)
        if place == len(text) or _FUNCTION.startswith(text[place : place + len(_FUNCTION)]):
            if len(text) - place < len(_FUNCTION):
                return place
            name, end = _name_at(text, place + len(_FUNCTION))
            if name is None:
                return place
            if name in self._tools:
                self._name, self._step = name, self._read_tag
                return end
            place = end
        self.state = Reading.FAILED
        return place

    def _read_tag(self, text: str, place: int) -> int:
        """Read what stands outside the values."""
        place = _skip_blanks(text, place)
        rest = text[place : place + len(CLOSER)]
        if rest.startswith(_PARAMETER):
            return self._begin_parameter(text, place)
        if rest.startswith((_FUNCTION_END, CLOSER)):
            self._begin()
            self._close()
            return place + (len(_FUNCTION_END) if rest.startswith(_FUNCTION_END) else 0)
        if any(tag.startswith(rest) and tag != rest for tag in (_PARAMETER, _FUNCTION_END, CLOSER)):
            return place
        self._close()
        return place

    def _begin_parameter(self, text: str, place: int) -> int:
        name, end = _name_at(text, place + len(_PARAMETER))
        if name is None:
            return place
        if not name:
            self._close()
            return end
        self._begin()
        self._step = self._begin_value
        self._dropped = name in self._seen
        if not self._dropped:
            self._types = self._types_of(name)
            self._whole = None if self._types <= {"string"} else []
            opening = ", " if self._seen else "{"
            self._seen.add(name)
            self._say(f"{opening}{quoted(name)}: " + ('"' if self._whole is None else ""))
        return end

    def _begin_value(self, text: str, place: int) -> int:
        """Leave out a line end before the value."""
        if text[place] == "\r" and place + 1 == len(text):
            return place
        self._step = self._read_value
        if text[place] == "\n":
            return place + 1
        return place + 2 if text.startswith("\r\n", place) else place

    def _read_value(self, text: str, place: int) -> int:
        found = _VALUE_END.search(text, place)
        if found is None:
            end = _undecided(text, place)
            self._say_value(text[place:end])
            return end
        self._say_value(text[place : found.start()])
        self._close_value()
        self._step = self._read_tag
        return found.end()

    def _types_of(self, parameter: str) -> frozenset[str]:
        schema = self._tools[self._name]
        properties = schema.get("properties")
        known = properties.get(parameter) if isinstance(properties, Mapping) else None
        return value_types(known, schema)

    def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            self._out.append(CallStart(self._name))

    def _say(self, text: str) -> None:
        self._out.append(CallArguments(text))

    def _say_value(self, text: str) -> None:
        if not text or self._dropped:
            return
        if self._whole is None:
            self._say(quoted(text)[1:-1])
        else:
            self._whole.append(text)

    def _close_value(self) -> None:
        if self._dropped:
            return
        self._say('"' if self._whole is None else coerced("".join(self._whole), self._types))

    def _close(self) -> None:
        """The call is over, here or where it went wrong."""
        if self.begun:
            self._close_arguments()
        self.state = Reading.DONE if self.begun else Reading.FAILED

    def _close_arguments(self) -> None:
        self._say("}" if self._seen else "{}")


def _skip_blanks(text: str, place: int) -> int:
    while place < len(text) and text[place].isspace():
        place += 1
    return place


def _name_at(text: str, place: int) -> tuple[str | None, int]:
    """Return the name that begins here and the place behind its tag: None while it is not whole,
    "" where it is none."""
    found = _NAME.match(text, place)
    if found is not None:
        return found[1].strip(), found.end()
    rest = text[place : place + _LONGEST_NAME + 1]
    if len(rest) <= _LONGEST_NAME and not any(char in rest for char in "<>\n"):
        return None, place
    return "", place


def _undecided(text: str, place: int) -> int:
    """Return where the text begins that may be the end of a value when more comes."""
    for found in _MAYBE_END.finditer(text, max(place, len(text) - _LONGEST_END)):
        if _may_end(text[found.start() :]):
            return found.start()
    return len(text)


def _may_end(rest: str) -> bool:
    line_end = 2 if rest.startswith("\r\n") else int(rest[0] in "\r\n")
    rest = rest[line_end:]
    if not rest:
        return True
    for tag, followers in _FOLLOWERS.items():
        if tag.startswith(rest):
            return True
        if rest.startswith(tag):
            following = rest[len(tag) :].lstrip()
            gap = len(rest) - len(tag) - len(following)
            return gap <= _GAP and any(each.startswith(following) for each in followers)
    return False
