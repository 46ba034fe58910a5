"""Where a setting comes from, and what is said when it cannot be used."""

from pathlib import Path

import pytest

from qwen_openai.errors import StartupError
from qwen_openai.settings import (
    GROUPS,
    Change,
    Settings,
    change,
    check_upstreams,
    flag_of,
    load,
    variable_of,
)
from qwen_openai.settings.changes import TAKEN_LIVE
from qwen_openai.settings.checks import networks

CONFIGS = sorted((Path(__file__).parent.parent / "configs").glob("*.toml"))


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "my.toml"
    file.write_text('port = 7000\nslots = 2\nhost = "::1"\n', encoding="utf-8")
    return file


def test_nothing_given_means_defaults() -> None:
    loaded = load(environ={})
    assert loaded.settings == Settings()
    assert set(loaded.origin.values()) == {"default"}


def test_flags_beat_environment_beats_file_beats_default(config: Path) -> None:
    environ = {"QWEN_OPENAI_SLOTS": "3", "QWEN_OPENAI_PORT": "7001"}
    loaded = load({"port": "7002", "slots": None}, environ=environ, config=config)
    assert (loaded.settings.port, loaded.origin["port"]) == (7002, "--port")
    assert (loaded.settings.slots, loaded.origin["slots"]) == (3, "QWEN_OPENAI_SLOTS")
    assert (loaded.settings.host, loaded.origin["host"]) == ("::1", str(config))
    assert (loaded.settings.threads, loaded.origin["threads"]) == (None, "default")


def test_the_config_file_can_be_named_in_the_environment(config: Path) -> None:
    assert load(environ={"QWEN_OPENAI_CONFIG": str(config)}).settings.port == 7000


def test_a_named_config_file_beats_the_one_in_the_environment(config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text("port = 8000\n", encoding="utf-8")
    environ = {"QWEN_OPENAI_CONFIG": str(config)}
    assert load(environ=environ, config=other).settings.port == 8000


def test_an_empty_variable_is_not_set() -> None:
    assert load(environ={"QWEN_OPENAI_PORT": ""}).settings.port == 6006


@pytest.mark.parametrize("variable", ["QWEN_OPENAI_BASE_URL", "QWEN_OPENAI_SHARED", "QWEN", "PATH"])
def test_variables_of_others_are_left_alone(variable: str) -> None:
    assert load(environ={variable: "x"}).settings == Settings()


@pytest.mark.parametrize(
    ("name", "value", "wanted"),
    [
        ("served_model_name", "gpt-4o-mini, qwen,", ("gpt-4o-mini", "qwen")),
        ("served_model_name", ["a", "b"], ("a", "b")),
        ("prompt_cache", "off", False),
        ("docs", False, False),
        ("stall_timeout", "2.5", 2.5),
        ("home", "~/models", Path.home() / "models"),
    ],
)
def test_values_are_read_as_people_write_them(name: str, value: object, wanted: object) -> None:
    assert getattr(load({name: value}, environ={}).settings, name) == wanted


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("port", "65536", "cannot be '65536' (from --port): input should be less than or equal"),
        ("port", "http", "input should be a valid integer"),
        ("slots", "0", "greater than or equal to 1"),
        (
            "engine",
            "vllm",
            "input should be 'auto', 'llamacpp', 'transformers', 'qwen_chat', 'upstream' or",
        ),
        ("stall_timeout", "nan", "finite number"),
        ("drain_timeout", "inf", "finite number"),
        ("host", "", "at least 1 character"),
        ("docs", "perhaps", "valid boolean"),
    ],
)
def test_an_unusable_value_is_one_sentence(name: str, value: str, message: str) -> None:
    with pytest.raises(StartupError) as caught:
        load({name: value}, environ={})
    assert f"The setting {name!r} cannot be" in caught.value.message
    assert message in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.fix == f"Its meaning: {Settings.model_fields[name].description}."


@pytest.mark.parametrize("key", ["", "two words", "schlüssel", "line\n", "nul\x00"])
def test_an_unusable_key_is_refused_and_not_repeated(key: str) -> None:
    with pytest.raises(StartupError, match="api_key") as caught:
        load(environ={"QWEN_OPENAI_API_KEY": key})
    assert not key or key not in caught.value.message


def test_an_unknown_key_in_a_file_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text("prot = 1\n", encoding="utf-8")
    with pytest.raises(StartupError, match=r"Unknown setting 'prot' in .*my\.toml") as caught:
        load(environ={}, config=file)
    assert caught.value.fix == "Did you mean 'port'?"


def test_an_unknown_variable_names_the_nearest() -> None:
    with pytest.raises(StartupError, match="'QWEN_OPENAI_SLOT' in the environment") as caught:
        load(environ={"QWEN_OPENAI_SLOT": "1"})
    assert caught.value.fix == "Did you mean 'QWEN_OPENAI_SLOTS'?"


def test_an_unknown_key_like_no_other_points_to_the_list() -> None:
    with pytest.raises(StartupError) as caught:
        load(environ={"QWEN_OPENAI_ZZZZZZ": "1"})
    assert "qwen-openai config" in caught.value.fix


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"port = = 1", "is not valid TOML"),
        (b"port = 1\xff", "is not valid TOML"),
        (None, "cannot be read: No such file or directory"),
    ],
)
def test_a_broken_config_file_is_one_sentence(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "my.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartupError, match=message) as caught:
        load(environ={}, config=file)
    assert str(file) in caught.value.message


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_needs_no_key(host: str) -> None:
    settings = Settings(host=host)
    assert settings.is_loopback()
    settings.check_exposure()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", "localhost.evil"])
def test_other_hosts_need_a_key_or_a_clear_word(host: str) -> None:
    with pytest.raises(StartupError, match="no API key is set") as caught:
        Settings(host=host).check_exposure()
    assert "QWEN_OPENAI_API_KEY" in caught.value.fix
    assert "`qwen-openai keys create NAME`" in caught.value.fix
    Settings(host=host).check_exposure(keys=1)
    assert not Settings(host=host).lets_anybody_in
    load({"host": host, "api_key": "k"}, environ={}).settings.check_exposure()
    load({"host": host, "insecure_no_auth": True}, environ={}).settings.check_exposure()


def test_a_secret_is_not_in_the_repr() -> None:
    assert "hunter2" not in repr(load({"api_key": "hunter2"}, environ={}).settings)


def test_every_setting_is_in_one_group_and_has_a_meaning() -> None:
    grouped = [name for _, names in GROUPS for name in names]
    assert sorted(grouped) == sorted(Settings.model_fields)
    assert all(field.description for field in Settings.model_fields.values())


def test_names_of_a_setting() -> None:
    assert variable_of("drain_timeout") == "QWEN_OPENAI_DRAIN_TIMEOUT"
    assert flag_of("drain_timeout") == "--drain-timeout"


@pytest.mark.parametrize("file", CONFIGS, ids=lambda file: file.name)
def test_every_config_in_the_repository_loads(file: Path) -> None:
    loaded = load(environ={}, config=file)
    assert str(file) in loaded.origin.values()


def test_the_cpu_config_is_the_embedded_default() -> None:
    cpu = next(file for file in CONFIGS if file.name == "cpu.toml")
    assert load(environ={}, config=cpu).settings == Settings()


def test_the_same_sources_are_read_again(config: Path) -> None:
    loaded = load({"port": "1"}, environ={"QWEN_OPENAI_SLOTS": "4"}, config=config)
    config.write_text('port = 9\nhost = "localhost"\n', encoding="utf-8")
    again = loaded.again()
    assert (again.settings.port, again.settings.slots, again.settings.host) == (1, 4, "localhost")
    assert again.origin == {**loaded.origin, "host": str(config)}
    assert again.config == config


def test_upstreams_and_aliases_in_the_environment() -> None:
    environ = {
        "QWEN_OPENAI_UPSTREAMS": "http://10.0.0.7:8000, https://llm.example.org/qwen/v1/,",
        "QWEN_OPENAI_ALIASES": "gpt-4o=Qwen/Qwen3-8B, gpt-4=m",
    }
    settings = load(environ=environ).settings
    assert [each.url for each in settings.upstreams] == [
        "http://10.0.0.7:8000/v1",
        "https://llm.example.org/qwen/v1",
    ]
    assert [each.place for each in settings.upstreams] == ["10.0.0.7:8000", "llm.example.org"]
    assert settings.aliases == {"gpt-4o": "Qwen/Qwen3-8B", "gpt-4": "m"}
    assert not settings.runs_here
    assert load({"model": "m"}, environ=environ).settings.runs_here


def test_upstreams_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(
        'upstreams = ["http://a:1", {url = "http://b:2", weight = 2, models = ["m"]}]\n',
        encoding="utf-8",
    )
    first, second = load(environ={}, config=file).settings.upstreams
    assert (first.place, second.weight, second.models) == ("a:1", 2, {"m": "m"})


def test_an_unusable_upstream_is_told_by_its_place_and_not_repeated(tmp_path: Path) -> None:
    file = tmp_path / "my.toml"
    file.write_text(
        '[[upstreams]]\nurl = "http://a:1"\n[[upstreams]]\nurl = "http://u:hunter2@b:2"\n',
        encoding="utf-8",
    )
    with pytest.raises(StartupError) as caught:
        load(environ={}, config=file)
    assert "a key goes to api_key at number 2, url." in caught.value.message
    assert "hunter2" not in caught.value.message + caught.value.fix


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("trusted_proxies", "10.0.0.0/8,proxy.local", "'proxy.local' in it: it is no address"),
        ("cors_origins", "https://a.example/", "browsers never send that"),
        ("cors_origins", "a.example", "browsers never send that"),
        ("cors_origins", "https://A.example", "browsers never send that"),
    ],
)
def test_what_is_no_address_is_refused(name: str, value: str, message: str) -> None:
    with pytest.raises(StartupError) as caught:
        load({name: value}, environ={})
    assert message in caught.value.message


def test_proxies_and_origins_as_people_write_them() -> None:
    flags = {"trusted_proxies": "10.0.0.7,fd00::/8,10.1.2.3/8", "cors_origins": "*,http://a:3000"}
    settings = load(flags, environ={}).settings
    assert [str(each) for each in networks(settings.trusted_proxies)] == [
        "10.0.0.7/32",
        "fd00::/8",
        "10.0.0.0/8",
    ]


def test_upstreams_alone_need_one() -> None:
    with pytest.raises(StartupError, match="no upstreams are set") as caught:
        check_upstreams(Settings(engine="upstream"))
    assert "--upstreams" in caught.value.fix
    check_upstreams(Settings())


def test_only_what_a_running_server_takes_changes() -> None:
    old = load({"port": "1", "model": "m"}, environ={}).settings
    new = load({"port": "2", "model": "m", "aliases": "a=m", "api_key": "k"}, environ={}).settings
    made = change(old, new)
    assert (made.taken, made.later) == (("aliases",), ("port", "api_key"))
    assert (made.settings.port, made.settings.aliases) == (1, {"a": "m"})
    assert made.settings.runs_here
    assert change(old, old) == Change(old, (), ())


def test_every_setting_that_is_taken_exists() -> None:
    assert set(Settings.model_fields) >= TAKEN_LIVE
