"""What an input means, and what is remembered."""

import json

import pytest

from qwen_openai.cli.conversation import Ask, Conversation, Leave, Save, Tell, Turn, is_open_block


def _user(text: str) -> Turn:
    return Turn(role="user", content=text)


def _assistant(text: str) -> Turn:
    return Turn(role="assistant", content=text)


def _told(conversation: Conversation, line: str) -> str:
    action = conversation.read(line)
    assert isinstance(action, Tell)
    return action.text


def test_questions_carry_the_history() -> None:
    conversation = Conversation()
    assert conversation.read(" 你好 ") == Ask((_user("你好"),))
    conversation.answered("你好!")
    assert conversation.read("再见") == Ask((_user("你好"), _assistant("你好!"), _user("再见")))


def test_a_question_without_an_answer_is_forgotten() -> None:
    conversation = Conversation()
    conversation.read("anyone?")
    conversation.unanswered()
    assert conversation.messages == ()


@pytest.mark.parametrize("line", ["", "   ", "\n", '""""""', '"""\n"""'])
def test_nothing_is_not_a_question(line: str) -> None:
    conversation = Conversation()
    assert conversation.read(line) is None
    assert conversation.messages == ()


def test_a_block_loses_its_quotes_and_keeps_its_lines() -> None:
    action = Conversation().read('"""\ndef f():\n    return 1\n"""')
    assert action == Ask((_user("def f():\n    return 1"),))


def test_two_slashes_send_one() -> None:
    assert Conversation().read("//clear") == Ask((_user("/clear"),))


def test_the_system_message_leads_and_can_be_changed() -> None:
    conversation = Conversation(system="Be brief.")
    assert _told(conversation, "/system") == "The system message is: Be brief."
    assert _told(conversation, "/system Be long.\nVery.") == "The system message is set."
    system = Turn(role="system", content="Be long.\nVery.")
    assert conversation.read("hi") == Ask((system, _user("hi")))
    conversation.unanswered()
    _told(conversation, "/system -")
    assert conversation.messages == ()
    assert "no system message" in _told(conversation, "/system")


def test_clear_keeps_the_system_message() -> None:
    conversation = Conversation(system="Be brief.")
    conversation.read("hi")
    conversation.answered("Hi.")
    _told(conversation, "/clear")
    assert conversation.messages == (Turn(role="system", content="Be brief."),)


def test_save_hands_over_a_document_that_the_api_would_take() -> None:
    conversation = Conversation(system="Be brief.")
    conversation.read("你好")
    conversation.answered("你好!")
    action = conversation.read("/save my chat.json")
    assert isinstance(action, Save)
    assert action.name == "my chat.json"
    assert "你好" in action.document
    assert json.loads(action.document) == {"messages": list(conversation.messages)}


def test_save_without_a_name_leaves_it_to_the_caller() -> None:
    action = Conversation().read("/save")
    assert isinstance(action, Save)
    assert action.name == ""


@pytest.mark.parametrize("line", ["/exit", "/quit", " /exit "])
def test_leaving(line: str) -> None:
    assert Conversation().read(line) == Leave()


def test_help_names_every_command() -> None:
    conversation = Conversation()
    text = _told(conversation, "/help")
    assert all(name in text for name in conversation.command_names if name != "/quit")


@pytest.mark.parametrize(
    ("line", "hint"), [("/clera", "Did you mean /clear?"), ("/zzz", "/help"), ("/", "/help")]
)
def test_an_unknown_command_is_not_sent(line: str, hint: str) -> None:
    conversation = Conversation()
    assert hint in _told(conversation, line)
    assert conversation.messages == ()


@pytest.mark.parametrize(
    ("text", "is_open"),
    [
        ("", False),
        ("hello", False),
        ('"""', True),
        ('""""', True),
        ('"""one\ntwo', True),
        ('"""one\ntwo"""', False),
        ('""""""', False),
        ('say """ twice """', False),
    ],
)
def test_a_block_is_open_until_its_quotes_come_again(text: str, is_open: bool) -> None:
    assert is_open_block(text) is is_open
