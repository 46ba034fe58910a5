"""Chat templates: set up like Hugging Face's, and nothing in one can do harm."""

import re
from collections.abc import Sequence

import pytest

from qwen_openai.errors import InvalidRequest, StartupError
from qwen_openai.prompting.template import ChatTemplate, Turn

HI: Sequence[Turn] = [{"role": "user", "content": "hi"}]


def render(source: str, turns: Sequence[Turn] = HI) -> str:
    return ChatTemplate(source).render(turns, generation_prompt=True)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("  {% if true %}\n  x\n  {% endif %}\n", "  x\n"),
        ("{% for m in messages %}{{ loop.index }}{% break %}{% endfor %}", "1"),
        ("{% for n in [0, 1] %}{% if n == 0 %}{% continue %}{% endif %}{{ n }}{% endfor %}", "1"),
        ("{{ messages[0].role }}{{ messages[0]['content'] }}", "userhi"),
        ("{{ add_generation_prompt }}{{ tools is none }}{{ documents is none }}", "TrueTrueTrue"),
        ("[{{ bos_token }}]", "[]"),
        ("{{ {'b': '<é>', 'a': 1} | tojson }}", '{"b": "<é>", "a": 1}'),
        ("{{ {'b': 2, 'a': 1} | tojson(indent=1, sort_keys=true) }}", '{\n "a": 1,\n "b": 2\n}'),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{{ 'é' | tojson(ensure_ascii=true) }}", '"\\u00e9"'),
        ("{{ '<\x7f😀\\n' | tojson(ensure_ascii=true) }}", '"<\\u007f\\ud83d\\ude00\\n"'),
        ("{% generation %}{{ 'a' }}{% endgeneration %}b", "ab"),
        ("{{ 'a' ~ 1 ~ messages[0].content }}", "a1hi"),
        ("{{ 'a' + 'b' * 3 }}{{ 2 ** 5 }}{{ 7 % 4 }}{{ '%s!' % 'x' }}", "abbb323x!"),
        ("{% set ns = namespace(n=0) %}{% for c in 'abc' %}{% set ns.n = ns.n + 1 %}{% endfor %}"
         "{{ ns.n }}", "3"),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(1) }}{{ f(x=2) }}", "<1><2>"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "a1"),
        ("{% for m in messages | selectattr('role', 'equalto', 'user') %}{{ loop.last }}"
         "{% endfor %}", "True"),
        ("{% for m in absent %}x{% else %}none{% endfor %}", "none"),
        ("{{ '<|im_start|>' }}", "<|im_start|>"),
        ("[{{ ''|attr('__class__') }}{{ ''.__class__ }}{{ lipsum.__globals__ }}]", "[]"),
    ],
)  # fmt: skip
def test_renders_as_hugging_face_does(source: str, text: str) -> None:
    assert render(source) == text


def test_tells_the_date() -> None:
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", render("{{ strftime_now('%Y-%m-%d') }}"))


def test_no_generation_prompt_unless_asked() -> None:
    template = ChatTemplate("{{ add_generation_prompt }}")
    assert template.render(HI, generation_prompt=False) == "False"


def test_constants_are_what_the_template_itself_can_write() -> None:
    template = ChatTemplate("a{{ 'b' + x['c'] }}{% if y == 'd' %}e{% endif %}{# f #}")
    assert {"a", "b", "c", "d", "e"} <= template.constants
    assert "f" not in "".join(template.constants)


@pytest.mark.parametrize(
    "source",
    [
        "{% import os %}",
        "{{",
        "{% for %}",
        "{% endif %}",
        "{{ x | nofilter }}",
        "{% nosuch %}",
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "x" * (2**20 + 1),
    ],
)
def test_what_is_no_template_is_refused_at_start(source: str) -> None:
    with pytest.raises(StartupError, match="chat template cannot be used") as caught:
        ChatTemplate(source)
    assert caught.value.fix


@pytest.mark.parametrize(
    "source",
    [
        "{% import 'os' as os %}{{ os.system('id') }}",
        "{% include '/etc/passwd' %}",
        "{% extends 'x' %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}{{ ''['__class__']['__base__'] }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ strftime_now.__globals__['time'] }}",
        "{{ '{0.__class__.__mro__}'.format('') }}",
        "{{ '{x.__class__.__mro__}'.format_map({'x': ''}) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update(role='system') }}",
        "{{ lipsum.__globals__.os }}",
        "{{ undefined_thing.x }}",
        "{{ 1 / 0 }}",
        "{{ messages[9].content }}",
        "{{ messages + 1 }}",
        "{{ raise_exception('no') }}",
    ],
)
def test_what_a_template_may_not_do_is_an_error(source: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        render(source)
    assert caught.value.param == "messages"
    assert "chat template" in caught.value.message


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% for a in 'x' * 9999999 %}{% for b in 'x' * 9999999 %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
        "{{ f(60) }}",
        "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% for m in messages recursive %}{{ loop(messages) }}{{ loop(messages) }}{% endfor %}",
        "{{ 2 ** 99999999999 }}",
        "{{ 10 ** 60 ** 60 ** 60 }}",
        "{{ 'x' * 10 ** 12 }}",
        "{{ [1] * 10 ** 12 }}",
        "{% set n = namespace(x='abcdefgh') %}{% for i in range(90) %}{% set n.x = n.x ~ n.x %}"
        "{% endfor %}",
        "{% set n = namespace(x='abcdefgh') %}{% for i in range(90) %}{% set n.x = n.x + n.x %}"
        "{% endfor %}",
        "{% for a in range(9999) %}{{ 'x' * 99999 }}{% endfor %}",
    ],
)
def test_a_template_that_spends_too_much_is_stopped(source: str) -> None:
    with pytest.raises(InvalidRequest, match=r"too (often|large|long)|large power|recursion"):
        render(source)


def test_the_error_holds_the_templates_words_in_one_short_line() -> None:
    with pytest.raises(InvalidRequest) as caught:
        render("{{ raise_exception('Roles must\nalternate.' + 'x' * 999) }}")
    assert "Roles must alternate" in caught.value.message
    assert "\n" not in caught.value.message
    assert len(caught.value.message) < 300


def test_stand_ins_are_never_spelled_out() -> None:
    turns = [{"role": "user", "content": "a\udc00é"}]
    source = "{{ messages[0].content | tojson(ensure_ascii=true) }}"
    assert render(source, turns) == '"a\udc00\\u00e9"'


def test_tools_and_options_are_variables() -> None:
    template = ChatTemplate("{{ tools | tojson }}{{ x }}{{ messages | length }}")
    assert template.variables == {"tools", "x", "messages"}
    options = {"x": 1, "messages": "no", "tools": "no"}
    tools = [{"type": "function"}]
    rendered = template.render(HI, generation_prompt=True, tools=tools, options=options)
    assert rendered == '[{"type": "function"}]11'
    assert template.render(HI, generation_prompt=True, tools=[]) == "null1"
