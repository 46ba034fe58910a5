"""`config` shows values, origins and meanings; never a secret."""

import json
from pathlib import Path

import pytest

from qwen_openai.cli.config import MASK, config, rows, to_markdown, to_toml
from qwen_openai.settings import Settings, load

MANUAL = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_rows_hold_value_origin_and_meaning() -> None:
    row = rows(load({"port": "7000"}, environ={}))["port"]
    assert row == {
        "value": 7000,
        "origin": "--port",
        "default": 6006,
        "meaning": Settings.model_fields["port"].description,
        "variable": "QWEN_OPENAI_PORT",
        "flag": "--port",
    }


def test_a_secret_is_masked_everywhere() -> None:
    loaded = load(environ={"QWEN_OPENAI_API_KEY": "hunter2"})
    assert rows(loaded)["api_key"]["value"] == MASK
    assert "hunter2" not in to_toml(loaded) + json.dumps(rows(loaded))


def test_the_printed_config_file_gives_the_same_settings(tmp_path: Path) -> None:
    loaded = load({"port": "7", "served_model_name": 'a"b,c', "home": "/m\\n"}, environ={})
    file = tmp_path / "printed.toml"
    file.write_text(to_toml(loaded), encoding="utf-8")
    assert load(environ={}, config=file).settings == loaded.settings


_NESTED = """
aliases = {"gpt-4.1" = "Qwen/Qwen3-8B", qwen = "m"}
upstreams = [
    {url = "http://a:1", models = {"our/m" = "its m"}, api_key = "hunter2"},
    {url = "http://b:2", weight = 2.5, api_key_env = "B_KEY"},
]
"""


def test_upstreams_are_shown_as_they_were_written_without_their_keys(tmp_path: Path) -> None:
    file = tmp_path / "nested.toml"
    file.write_text(_NESTED, encoding="utf-8")
    loaded = load(environ={}, config=file)
    printed = to_toml(loaded)
    assert "hunter2" not in printed + json.dumps(rows(loaded))
    assert rows(loaded)["upstreams"]["value"] == [
        {"url": "http://a:1/v1", "models": {"our/m": "its m"}, "api_key": MASK},
        {"url": "http://b:2/v1", "weight": 2.5, "api_key_env": "B_KEY"},
    ]
    again = tmp_path / "again.toml"
    again.write_text(printed, encoding="utf-8")
    settings = load(environ={}, config=again).settings
    assert settings.aliases == loaded.settings.aliases
    first, second = settings.upstreams
    assert (first.models, first.api_key) == ({"our/m": "its m"}, None)
    assert second == loaded.settings.upstreams[1]


def test_the_command_prints_each_form(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWEN_OPENAI_SLOTS", "3")
    config()
    text = capsys.readouterr().out
    assert "slots = 3" in text
    assert "from QWEN_OPENAI_SLOTS" in text
    assert all(name in text for name in Settings.model_fields)
    config(as_json=True)
    assert json.loads(capsys.readouterr().out)["slots"]["origin"] == "QWEN_OPENAI_SLOTS"
    config(as_toml=True)
    assert "\nslots = 3  # " in capsys.readouterr().out
    config(as_markdown=True)
    assert capsys.readouterr().out == to_markdown()


def test_the_manual_holds_the_settings_as_they_are() -> None:
    assert to_markdown() in MANUAL.read_text(encoding="utf-8"), (
        "docs/configuration.md is stale: put the output of `qwen-openai config --markdown` into it"
    )
