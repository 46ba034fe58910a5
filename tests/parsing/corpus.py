"""Nasty outputs and what must come of them, a list for each syntax.

A row is a name, the text, whether its length cut it, and what comes out: texts and calls. The tools
are `TOOLS`; where a row says nothing else, both a natural end and a cut give the same.
"""

from dataclasses import dataclass

from qwen_openai.core import Tool
from tests.parsing.reading import Call

TOOLS = (
    Tool(
        "f",
        parameters={
            "type": "object",
            "properties": {
                "s": {"type": "string"},
                "n": {"type": "integer"},
                "x": {"type": "number"},
                "b": {"type": "boolean"},
                "z": {"type": ["string", "null"]},
                "l": {"type": "array", "items": {}},
                "o": {"$ref": "#/$defs/O"},
                "e": {"enum": [1, 2]},
            },
            "$defs": {"O": {"type": "object"}},
        },
    ),
    Tool("get-it_2"),
)


@dataclass(frozen=True)
class Row:
    name: str
    text: str
    found: list[str | Call]
    cut: bool | None = None


def call(arguments: str, name: str = "f") -> str:
    """A call as the chat templates write it."""
    return f'<tool_call>\n{{"name": "{name}", "arguments": {arguments}}}\n</tool_call>'


def same(name: str, text: str) -> Row:
    """A text that stays as it is."""
    return Row(name, text, [text] if text else [])


def until(part: str, text: str) -> str:
    """The beginning of a text up to where a part of it last ends."""
    return text[: text.rindex(part) + len(part)]


X = Call("f", '{"x": 1}')
X_TEXT = call('{"x": 1}')
LONG = '{"s": "' + "a" * 70
SHORT_OPEN = call('{"s": "a\nb}')
HUGE = '{"s": "' + '{\\"k\\": [1, \\u00e9</tool_call>]}' * 3500 + '"}'
DEEP = '{"s": ' + "[" * 127 + "]" * 127 + "}"
TOO_DEEP = '{"s": ' + "[" * 200 + "]" * 200 + "}"

HERMES = [
    Row("one call", X_TEXT, [X]),
    Row("text before", f"I look.\n\n{X_TEXT}", ["I look.", X]),
    Row("blanks before", f"\n \n{X_TEXT}", [X]),
    Row("two calls", f"{X_TEXT}\n{X_TEXT}", [X, X]),
    Row("two calls on a line", X_TEXT + X_TEXT, [X, X]),
    Row("text between and behind", f"A.\n{X_TEXT}\n\nB.\n\n{X_TEXT}\n C. \n",
        ["A.", X, "\nB.", X, "\nC. \n"]),
    Row("text behind alone", f"{X_TEXT}\n\nDone.", [X, "Done."]),
    Row("blanks behind", f"{X_TEXT}\n\n", [X]),
    Row("no line ends", '<tool_call>{"name":"f","arguments":{"x": 1}}</tool_call>', [X]),
    Row("CRLF", X_TEXT.replace("\n", "\r\n"), [X]),
    Row("arguments first",
        '<tool_call>{"arguments": {"x": 1}, "name": "f"}</tool_call>', [X]),
    Row("parameters", '<tool_call>{"name": "f", "parameters": {"x": 1}}</tool_call>', [X]),
    Row("other keys", '<tool_call>{"id": [5, {}], "name": "f", "arguments": {"x": 1}, "k": -1.5e3}'
        "</tool_call>", [X]),
    Row("keys twice", '<tool_call>{"name": "f", "arguments": {"x": 1}, "arguments": {}, "name": ""}'
        "</tool_call>", [X]),
    Row("arguments as a string",
        '<tool_call>{"name": "f", "arguments": "{\\"x\\": 1}"}</tool_call>', [X]),
    Row("no arguments", '<tool_call>{"name": "f"}</tool_call>', [Call("f", "{}")]),
    Row("null for arguments", call("null"), [Call("f", "{}")]),
    Row("an empty string for arguments", call('""'), [Call("f", "{}")]),
    Row("empty arguments", call("{}", "get-it_2"), [Call("get-it_2", "{}")]),
    Row("name in escapes", '<tool_call>{"n\\u0061me": "\\u0066", "arguments": {"x": 1}}'
        "</tool_call>", [X]),
    Row("nested braces", call('{"o": {"a": [{}, {"b": "}}"}]}}'),
        [Call("f", '{"o": {"a": [{}, {"b": "}}"}]}}')]),
    Row("escapes", call('{"s": "\\"\\\\}\\n\\ud83d\\ude00é😀"}'),
        [Call("f", '{"s": "\\"\\\\}\\n\\ud83d\\ude00é😀"}')]),
    Row("tags in strings", call('{"s": "</tool_call><tool_call>{}</think>"}'),
        [Call("f", '{"s": "</tool_call><tool_call>{}</think>"}')]),
    Row("100 kB", call(HUGE), [Call("f", HUGE)]),
    Row("as deep as may be", call(DEEP), [Call("f", DEEP)]),
    Row("a brace too many", X_TEXT.replace("}}", "}}}"), [X]),
    Row("a brace missing", X_TEXT.replace("}}", "}"), [X]),
    Row("closing tag missing", X_TEXT.removesuffix("</tool_call>"), [X]),
    Row("closing tag cut", X_TEXT[:-3], [X]),
    Row("closing tag missing between", X_TEXT.removesuffix("</tool_call>") + X_TEXT, [X, X]),
    Row("closing tag missing before text", X_TEXT.removesuffix("</tool_call>") + "Done." * 20,
        [X, "Done." * 20]),
    Row("rubbish before the closing tag", X_TEXT.replace("\n</", "\n```\n</"), [X]),
    Row("opened twice", f"<tool_call>\n{X_TEXT}", ["<tool_call>", X]),
    Row("prose about tags, then a call", f"I write <tool_call> and </tool_call>:\n{X_TEXT}",
        ["I write <tool_call> and </tool_call>:", X]),
    Row("an unknown tool, then a call", f"{call('{}', 'rm')}\n{X_TEXT}", [call("{}", "rm"), X]),
    Row("lines and tabs in a string", call('{"s": "a\r\n\tb\n\nc", "x": 1}'),
        [Call("f", '{"s": "a\\r\\n\\tb\\n\\nc", "x": 1}')]),
    Row("a line in a nested string", call('{"o": {"a": ["\n"]}}'),
        [Call("f", '{"o": {"a": ["\\n"]}}')]),
    Row("lines around strings stay", call('{\n\t"s": "\n"\r\n}'),
        [Call("f", '{\n\t"s": "\\n"\r\n}')]),
    Row("lines in a long string", call(LONG + '\n</tool\n </tool_call>\t\n"}'),
        [Call("f", LONG + '\\n</tool\\n </tool_call>\\t\\n"}')]),
    Row("an open string, then a call", call(LONG + "\nb}") + X_TEXT,
        [Call("f", LONG + "\\nb}}\n"), X]),
    Row("a short open string, then a call", f"{SHORT_OPEN}\n{X_TEXT}", [SHORT_OPEN, X]),
    Row("an open string in lines that end", call(LONG + "\n").removesuffix("}\n</tool_call>"),
        [Call("f", LONG + "\n")]),
    Row("broken late", call(LONG + '\0"}'), [Call("f", LONG + '\0"}}\n')]),
    Row("broken late, then a call", call(LONG + "\\x") + X_TEXT, [Call("f", LONG + "\\x}\n"), X]),
    Row("too deep", call(TOO_DEEP),
        [Call("f", TOO_DEEP + "}\n")]),
    Row("a broken key behind long arguments", call(f'{LONG}"}}, bad') + "B.",
        [Call("f", LONG + '"}'), "B."]),
    Row("cut in long arguments", call(LONG).removesuffix("}\n</tool_call>"), [Call("f", LONG)]),
    same("an unknown tool", call("{}", "rm")),
    same("a name that is no text", '<tool_call>{"name": 5, "arguments": {}}</tool_call>'),
    same("no name", '<tool_call>{"arguments": {}}</tool_call>'),
    same("an endless name", '<tool_call>{"name": "' + "f" * 600 + '"}</tool_call>'),
    same("arguments that are a list", call("[1]")),
    same("arguments that are a number", call("5")),
    same("arguments that are other text", call('"Paris"')),
    same("arguments that are a broken object in text", call('"{x}"')),
    same("broken JSON", call("{'x': 1}")),
    same("a comma too many", call('{"x": 1,}')),
    same("a line break in a key", call('{"s\n": "a"}')),
    same("a line break in the name", call("{}", "f\n")),
    same("a line break in arguments in text", call('"{\n}"')),
    same("a line break between halves", call('{"s": "\\ud83d\n\\ude00"}')),
    same("another control character", call('{"s": "\b"}')),
    same("a string that is not closed", call('{"s": "a\nb}')),
    same("NaN", call('{"x": NaN}')),
    same("a leading zero", call('{"x": 01}')),
    same("half a pair of surrogates", call('{"s": "\\ud800"}')),
    same("the other half", call('{"s": "\\udc00"}')),
    same("two first halves", call('{"s": "\\ud800\\ud800"}')),
    same("no object", "<tool_call>\nf(1)\n</tool_call>"),
    same("a key that is none", "<tool_call>{name: 1}</tool_call>"),
    same("no colon", '<tool_call>{"name" "f"}</tool_call>'),
    same("nothing in the tags", "<tool_call></tool_call>"),
    same("an empty object", "<tool_call>{}</tool_call>"),
    same("cut in the tag", "So.\n<tool_ca"),
    same("cut behind the tag", "So.\n<tool_call>\n"),
    same("cut in the name", '<tool_call>\n{"name": "f'),
    same("cut behind the name", '<tool_call>\n{"name": "f", '),
    same("cut in short arguments", '<tool_call>\n{"name": "f", "arguments": {"x": '),
    same("prose", "a < b, <tool>, <tool_cal> and </tool_call>\n\n"),
    same("bare JSON", '{"name": "f", "arguments": {"x": 1}}'),
    same("nothing", ""),
    same("blanks", " \n\t"),
]  # fmt: skip


def xml(parameters: str, name: str = "f") -> str:
    """A call as the chat templates write it."""
    return f"<tool_call>\n<function={name}>\n{parameters}</function>\n</tool_call>"


def parameter(name: str, value: str) -> str:
    return f"<parameter={name}>\n{value}\n</parameter>\n"


S = Call("f", '{"s": "a"}')
S_TEXT = xml(parameter("s", "a"))
CODE = 'def f():\n\treturn "</parameter>"\n'
POM = '<a>\n  <parameter name="k">v</parameter>\n</a>'

XML = [
    Row("one call", S_TEXT, [S]),
    Row("text around", f"A.\n\n{S_TEXT}\n\nB.", ["A.", S, "\nB."]),
    Row("two calls", f"{S_TEXT}\n{S_TEXT}", [S, S]),
    Row("all types",
        xml("".join((parameter("s", "5"), parameter("n", "5"), parameter("x", "-1.5e3"),
                     parameter("b", "true"), parameter("z", "null"),
                     parameter("l", '[1,\n {"a": "b"}]'), parameter("o", "{}"),
                     parameter("e", "2"), parameter("unknown", "1")))),
        [Call("f", '{"s": "5", "n": 5, "x": -1.5e3, "b": true, "z": null, "l": [1,\n {"a": "b"}], '
                   '"o": {}, "e": 2, "unknown": "1"}')]),
    Row("values of other types",
        xml("".join((parameter("n", "five"), parameter("b", "yes"), parameter("l", "[1"),
                     parameter("o", "[1]"), parameter("z", "5")))),
        [Call("f", '{"n": "five", "b": "yes", "l": "[1", "o": "[1]", "z": "5"}')]),
    Row("Python's words", xml(parameter("b", "False") + parameter("z", "None")),
        [Call("f", '{"b": false, "z": null}')]),
    Row("escapes", xml(parameter("s", 'a "b"\\\t😀\r')),
        [Call("f", '{"s": "a \\"b\\"\\\\\\t😀"}')]),
    Row("one line end each side", xml(parameter("s", "\n\na\n")),
        [Call("f", '{"s": "\\n\\na\\n"}')]),
    Row("CRLF", S_TEXT.replace("\n", "\r\n"), [S]),
    Row("no line ends", S_TEXT.replace("\n", ""), [S]),
    Row("an empty value", xml("<parameter=s></parameter>\n"), [Call("f", '{"s": ""}')]),
    Row("an empty line for a value", xml("<parameter=s>\n</parameter>\n"),
        [Call("f", '{"s": ""}')]),
    Row("no parameters", xml(""), [Call("f", "{}")]),
    Row("no parameters, no schema", xml("", "get-it_2"), [Call("get-it_2", "{}")]),
    Row("a parameter twice", xml(parameter("s", "a") + parameter("s", "b") + parameter("n", "1")),
        [Call("f", '{"s": "a", "n": 1}')]),
    Row("without the outer tags", "<function=f>\n<parameter=s>\na\n</parameter>\n</function>\nB.",
        [S, "B."]),
    Row("without the closing tags", f"<tool_call>\n<function=f>\n{parameter('s', 'a')}</tool_call>",
        [S]),
    Row("without a parameter's closing tag",
        xml("<parameter=s>\na\n"), [S]),
    Row("its tags in a value", xml(parameter("s", CODE)),
        [Call("f", '{"s": "def f():\\n\\treturn \\"</parameter>\\"\\n"}')]),
    Row("XML in a value", xml(parameter("s", POM)),
        [Call("f", '{"s": "<a>\\n  <parameter name=\\"k\\">v</parameter>\\n</a>"}')]),
    Row("half tags in a value", xml(parameter("s", "</param </function>\n<para <tool_call>")),
        [Call("f", '{"s": "</param </function>\\n<para <tool_call>"}')]),
    Row("100 kB", xml(parameter("s", 'é"\n' * 30_000)),
        [Call("f", '{"s": "' + 'é\\"\\n' * 30_000 + '"}')]),
    Row("ended in a value", until(">\na\n", S_TEXT), [S], cut=False),
    Row("cut in a value", until(">\na", S_TEXT), [Call("f", '{"s": "a')], cut=True),
    Row("ended in a closing tag", until("</parameter", S_TEXT),
        [Call("f", '{"s": "a\\n</parameter"}')], cut=False),
    Row("ended behind a value", until("</parameter>\n", S_TEXT), [S], cut=False),
    Row("cut behind a value", until("</parameter>", S_TEXT), [Call("f", '{"s": "a"')], cut=True),
    Row("cut in a number", until("12", xml(parameter("n", "123"))), [Call("f", '{"n": ')],
        cut=True),
    Row("ended in a number", until("12", xml(parameter("n", "123"))), [Call("f", '{"n": 12}')],
        cut=False),
    Row("rubbish behind a parameter's name",
        "<function=f><parameter=s>a</parameter><parameter=\n></function></tool_call>",
        [S]),
    Row("an unknown tool, then a call", xml("", "rm") + S_TEXT, [xml("", "rm"), S]),
    same("an unknown tool", xml(parameter("s", "a"), "rm")),
    same("JSON in the tags", call("{}")),
    same("no name", "<function=>\n</function>"),
    same("a line for a name", "<function=f\n></function>"),
    same("text before the parameters", xml("So: " + parameter("s", "a"))),
    same("an endless name", "<function=" + "f" * 300),
    same("cut in the tag", "So.\n<functi"),
    same("cut in the name", "<tool_call>\n<function=f"),
    same("cut behind the name", "<tool_call>\n<function=f>\n"),
    same("cut in a parameter's name", "<tool_call>\n<function=f>\n<parameter=s"),
    same("prose", "a <function> b <parameter=s> c </function>"),
]  # fmt: skip

BARE_TEXT = '{"name": "f", "arguments": {"x": 1}}'
PRETTY = '{\n  "name": "f",\n  "arguments": {\n    "x": 1\n  }\n}'

BARE = [
    Row("a call", BARE_TEXT, [X]),
    Row("blanks around", f"\n {BARE_TEXT}\n", [X]),
    Row("arguments first", '{"arguments": {"x": 1}, "name": "f"}', [X]),
    Row("pretty", PRETTY, [Call("f", '{\n    "x": 1\n  }')]),
    Row("in a fence", f"```json\n{BARE_TEXT}\n```", [X]),
    Row("in a plain fence", f"```\n{BARE_TEXT}\n```\n", [X]),
    Row("pretty in a fence", f"```json\n{PRETTY}\n```", [Call("f", '{\n    "x": 1\n  }')]),
    Row("in a fence that is not closed", f"```json\n{BARE_TEXT}\n``", [X]),
    Row("text behind", f"{BARE_TEXT}\n\nThis calls f.", [X, "This calls f."]),
    Row("text behind a fence", f"```json\n{BARE_TEXT}\n```\nThis calls f.\n",
        [X, "This calls f.\n"]),
    Row("a fence behind", f"```json\n{BARE_TEXT}\n```\n```python\nf(1)\n```",
        [X, "```python\nf(1)\n```"]),
    Row("lines of calls", f"{BARE_TEXT}\n{BARE_TEXT}", [X, X]),
    Row("lines in a fence", f"```json\n{BARE_TEXT}\n{BARE_TEXT}\n```", [X, X]),
    Row("fences", f"```json\n{BARE_TEXT}\n```\n\n```json\n{BARE_TEXT}\n```", [X, X]),
    Row("a list", f"[{BARE_TEXT},\n {BARE_TEXT}]", [X, X]),
    Row("a list in a fence", f"```json\n[\n{BARE_TEXT}\n]\n```\nDone.", [X, "Done."]),
    Row("a list that ends in other things", f"[{BARE_TEXT}, 5]", [X, ", 5]"]),
    Row("a list that is cut", f"[{BARE_TEXT}, ", [X]),
    Row("an unknown tool behind", BARE_TEXT + '\n{"name": "rm", "arguments": {}}',
        [X, '{"name": "rm", "arguments": {}}']),
    Row("a brace missing", BARE_TEXT[:-1], [X]),
    Row("100 kB", f'{{"name": "f", "arguments": {HUGE}}}', [Call("f", HUGE)]),
    Row("cut in long arguments", '{"name": "f", "arguments": ' + LONG, [Call("f", LONG)]),
    Row("lines in a string", '{"name": "f", "arguments": {"s": "a\n\tb"}}',
        [Call("f", '{"s": "a\\n\\tb"}')]),
    Row("lines in a string in a fence",
        '```json\n{"name": "f", "arguments": {"s": "a\n\n``b"}}\n```\nSo.',
        [Call("f", '{"s": "a\\n\\n``b"}'), "So."]),
    Row("an open string", f'```json\n{{"name": "f", "arguments": {LONG}\nb}}}}\n```\nSo.',
        [Call("f", LONG + "\\nb}}"), "So."]),
    Row("broken late", f'```json\n{{"name": "f", "arguments": {LONG}\0"}}}}\n```\nSo.',
        [Call("f", LONG + '\0"}}'), "So."]),
    Row("in tags", X_TEXT, [X]),
    Row("in tags behind text", f"So.\n{X_TEXT}", ["So.", X]),
    Row("in tags behind a bare one", f"{BARE_TEXT}\n{X_TEXT}", [X, X]),
    Row("in tags behind other JSON", f'{{"a": 1}}\n{X_TEXT}', ['{"a": 1}', X]),
    same("a person", '{"name": "Ann", "age": 3}'),
    same("a schema's answer", '{"answer": {"name": "f", "arguments": {}}}'),
    same("an unknown tool", '{"name": "unknown_tool", "arguments": {}}'),
    same("no arguments", '{"name": "f"}'),
    same("a tool's definition", '{"name": "f", "parameters": {"type": "object"}}'),
    same("one more key", '{"name": "f", "arguments": {"x": 1}, "result": 5}'),
    same("one more key first", '{"id": 1, "name": "f", "arguments": {"x": 1}}'),
    same("null for arguments", '{"name": "f", "arguments": null}'),
    same("broken JSON", '{"name": "f", "arguments": {x: 1}}'),
    same("prose first", f"Write:\n```json\n{BARE_TEXT}\n```"),
    same("a word first", f"json {BARE_TEXT}"),
    same("other code", "```python\nprint({})\n```"),
    same("other JSON in a fence", '```json\n{"a": 1}\n```\n'),
    same("an empty fence", "```json\n```"),
    same("a list of numbers", "[1, 2]"),
    same("an empty list", "[]"),
    same("an empty object", "{}"),
    same("quoted", f"`{BARE_TEXT}`"),
    same("half a fence", "``"),
    same("cut in the name", '{"name": "f'),
    same("cut in a fence", '```json\n{"name"'),
    same("cut in short arguments", '```json\n{"name": "f", "arguments": {"x": '),
    same("nothing", ""),
    same("blanks", "\n \n"),
]  # fmt: skip
