"""`qwen-openai usage`: tables, JSON and CSV of what a database holds."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from qwen_openai.gateway.store import keys, usage
from qwen_openai.gateway.store.database import opened
from tests.cli.inside import run
from tests.cli.program import environment
from tests.gateway.records import record

NOW = datetime.now(UTC)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "gateway.db"
    yesterday = (NOW - timedelta(days=1)).timestamp()
    with opened(path) as connection:
        _, anna = keys.insert(connection, "安娜", now=0.0)
        usage.insert(
            connection,
            [
                record(key=anna.id, tokens=(1000, 50, 800), at=NOW.timestamp() - 1),
                record(key=anna.id, tokens=(10, 5, 0), at=yesterday, outcome="aborted"),
                record(key="", model="=cmd()", at=yesterday, outcome="error", first_token=None),
                record(key="", at=(NOW - timedelta(days=90)).timestamp()),
            ],
        )
    return path


@pytest.fixture
def env(tmp_path: Path, base: Path) -> dict[str, str]:
    return environment(tmp_path, QWEN_OPENAI_DATABASE=str(base))


def day(moment: datetime) -> str:
    return moment.date().isoformat()


def test_a_table_with_names_and_a_total(env: dict[str, str]) -> None:
    done = run("usage", env=env)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:5] == ["day", "key", "model", "requests", "prompt"]
    today = [day(NOW), "安娜", "qwen", "1", "1,000", "800", "50", "0", "0", "0"]
    assert [*today, "0.100", "s", "0.500", "s", "0.500", "s"] in lines
    yesterday = [day(NOW - timedelta(days=1)), "-", "=cmd()"]
    assert [*yesterday, "1", "10", "0", "5", "1", "0", "0", "-", "-", "-"] in lines
    assert lines[-1][:4] == ["total", "3", "1,020", "800"]
    assert len(lines) == 5  # what is older than thirty days is not asked for


def test_filters(env: dict[str, str]) -> None:
    def found(*flags: str) -> list[dict[str, object]]:
        done = run("usage", "--json", *flags, env=env)
        assert done.returncode == 0, done.stderr
        rows: list[dict[str, object]] = json.loads(done.stdout)["rows"]
        return rows

    assert [row["requests"] for row in found("--by", "key", "--since", "2000-01-01")] == [2, 2]
    assert [row["day"] for row in found("--by", "day", "--since", "10m", "--model", "qwen")] == [
        day(NOW)
    ]
    before = day(NOW - timedelta(days=1))
    assert [row["day"] for row in found("--by", "day", "--until", before, "--key", "安娜")] == [
        before
    ]


def test_json_and_csv_say_the_same(env: dict[str, str]) -> None:
    told = json.loads(run("usage", "--json", "--by", "key,model", env=env).stdout)
    rows = list(
        csv.DictReader(io.StringIO(run("usage", "--csv", "--by", "key,model", env=env).stdout))
    )
    assert len(rows) == len(told["rows"]) == 2
    for row, same in zip(rows, told["rows"], strict=True):
        assert list(row) == list(same)
        assert row["key_name"] == same["key_name"]
        assert int(row["prompt_tokens"]) == same["prompt_tokens"]
    # A spreadsheet would run it.
    assert {row["model"] for row in rows} == {"qwen", "'=cmd()"}
    assert told["total"]["requests"] == 3


@pytest.mark.parametrize(
    ("flags", "code", "says"),
    [
        (["--since", "yesterday"], 2, "yesterday"),
        (["--since", "99999999999d"], 2, "span"),
        (["--by", "shoe"], 2, "shoe"),
        (["--key", "nobody"], 1, "keys list"),
        (["--database", "/nowhere/gateway.db"], 1, "There is no database"),
        (["--database", "off"], 1, "off"),
    ],
)
def test_what_cannot_be_shown_is_explained(
    flags: list[str], code: int, says: str, env: dict[str, str]
) -> None:
    done = run("usage", *flags, env=env)
    assert done.returncode == code
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_no_database_is_explained(tmp_path: Path, env: dict[str, str]) -> None:
    (tmp_path / "other").write_text("no database" * 1000)
    done = run("usage", "--database", str(tmp_path / "other"), env=env)
    assert done.returncode == 1
    assert "not a database" in done.stderr
