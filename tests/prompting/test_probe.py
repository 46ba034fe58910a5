"""What is found out of a template by trying it."""

import pytest

from qwen_openai.core import Thinking, ToolSyntax
from qwen_openai.errors import StartupError
from qwen_openai.prompting.probe import Facts, probe
from qwen_openai.prompting.template import ChatTemplate
from tests.models.tiny_gguf import TEMPLATE
from tests.prompting.templates import FORGETTING, HERMES, REFUSING, TAGS, THINKING

OPENING = "{{ messages[0].content }}{{ '<think>' if %s }}"
SHOWN = "{{ messages[0].content }}{{ tools | tojson if tools }}"


def facts(source: str, has_thoughts: bool = True) -> Facts:
    return probe(ChatTemplate(source), has_thoughts=has_thoughts)


@pytest.mark.parametrize(
    ("source", "tools", "thinking"),
    [
        (TEMPLATE, None, "never"),
        (HERMES, "hermes", "switched"),
        (TAGS, "xml", "always"),
        (THINKING, None, "never"),
        (FORGETTING, None, "never"),
        (OPENING % "true", None, "always"),
        (OPENING % "enable_thinking", None, "switched"),
        (OPENING % "enable_thinking is not false", None, "switched"),
        (OPENING % "enable_thinking is undefined", None, "switched"),
        (OPENING % "enable_thinking or true", None, "always"),
        ("{{ messages[0].content }}{{ 'x' if enable_thinking }}", None, "switched"),
        ("{{ messages[0].content }}{{ 1 / 0 if enable_thinking }}", None, "switched"),
        # Told of tools, but in no way whose calls are known, or failing on them.
        (SHOWN, None, "never"),
        ("{{ messages[0].content }}{{ 1 / 0 if tools }}", None, "never"),
        (SHOWN + "{{ 1 / 0 if messages[1] and messages[1].tool_calls }}", None, "never"),
    ],
)
def test_tools_and_thinking(source: str, tools: ToolSyntax | None, thinking: Thinking) -> None:
    found = facts(source)
    assert (found.tools, found.thinking) == (tools, thinking)
    assert facts(source, has_thoughts=False).thinking == "never"


def test_thoughts_are_taken_out_by_their_tags() -> None:
    assert facts(THINKING).splits_thoughts
    assert facts(THINKING).splits_before_calls
    assert not facts(TEMPLATE).splits_thoughts
    assert not facts(HERMES).splits_before_calls
    only_without = "{% set c = message.content.split('</think>')[-1] %}{{ c }}"
    source = "{% for message in messages %}{% if message.tool_calls %}{{ message.content }}"
    found = facts(source + "{% else %}" + only_without + "{% endif %}{% endfor %}")
    assert (found.splits_thoughts, found.splits_before_calls) == (True, False)


def test_thoughts_that_an_option_lets_through_are_not_taken_out() -> None:
    kept = "{{ message.content if preserve_thinking else message.content.split('</think>')[-1] }}"
    found = facts("{% for message in messages %}" + kept + "{% endfor %}")
    assert not found.splits_thoughts


def test_a_template_that_fails_on_calls_keeps_no_tags_before_them() -> None:
    source = "{{ 1 / 0 if messages[1] and messages[1].tool_calls }}" + THINKING
    found = facts(source)
    assert (found.splits_thoughts, found.splits_before_calls) == (True, False)


def test_one_that_fails_on_everything_is_found_at_start() -> None:
    assert facts(REFUSING).tools is None
    with pytest.raises(StartupError, match="simplest conversation"):
        facts("{{ nothing.here }}")
