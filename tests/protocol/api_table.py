"""The tables of docs/api.md, made from matrices and families; run as a module, it writes them."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

from qwen_openai.families import DEFAULT_FAMILY, FAMILIES, SamplingDefaults
from qwen_openai.protocol import completions, responses_api
from qwen_openai.protocol.parameters import PARAMETERS, Parameter

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
COMMAND = "python -m tests.protocol.api_table"


def table(parameters: Iterable[Parameter]) -> str:
    """A matrix as Markdown."""
    rows = ["| parameter | here | |", "| --- | --- | --- |"]
    rows += [f"| `{row.name}` | {row.use} | {_remark(row)} |" for row in parameters]
    return "\n".join(rows) + "\n"


def defaults() -> str:
    """What a request that says nothing gets, a row a generation and one more where it thinks."""
    names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "repetition_penalty")
    rows = ["| | " + " | ".join(f"`{name}`" for name in names) + " |", "| --- " * 7 + "|"]
    for family in (*FAMILIES, DEFAULT_FAMILY):
        rows.append(_defaults(family.name, family.sampling, names))
        if family.thinking_sampling is not None:
            rows.append(_defaults(f"{family.name}, thinking", family.thinking_sampling, names))
    return "\n".join(rows) + "\n"


def _defaults(name: str, sampling: SamplingDefaults, names: tuple[str, ...]) -> str:
    values = [f"{getattr(sampling, each):g}" for each in names]
    return f"| {name} | {' | '.join(values)} |"


def with_table(document: str) -> str:
    """A document whose tables are current."""
    for name, rows in (
        ("support", table(PARAMETERS.values())),
        ("defaults", defaults()),
        ("completions", table(completions.HONOURED)),
        ("responses", table(responses_api.SETTLED)),
    ):
        block = rf"(?<=<!-- {name} table -->\n).*?(?=<!-- end of {name} table -->)"
        parts = re.split(block, document, flags=re.DOTALL)
        assert len(parts) == 2, f"docs/api.md has lost the marks around its {name} table"
        document = f"{parts[0]}\n{rows}\n{parts[1]}"
    return document


def _remark(row: Parameter) -> str:
    harmless = ", ".join(f"`{json.dumps(value)}`" for value in row.harmless)
    parts = (
        row.accepts,
        row.note,
        f"use `{row.instead}`" if row.instead else "",
        f"{harmless} asks for nothing and is taken" if harmless else "",
        f"{row.otherwise} for models without {row.needs}" if row.needs else "",
    )
    return "; ".join(part for part in parts if part)


if __name__ == "__main__":
    DOCUMENT.write_text(with_table(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
