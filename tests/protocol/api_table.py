"""The support table of docs/api.md, made from the matrix. Run it as a module to write it anew."""

import json
import re
from pathlib import Path

from qwen_openai.protocol.parameters import PARAMETERS, Parameter

DOCUMENT = Path(__file__).parents[2] / "docs" / "api.md"
COMMAND = "python -m tests.protocol.api_table"

_BLOCK = re.compile(r"(?<=<!-- support table -->\n).*?(?=<!-- end of support table -->)", re.DOTALL)


def table() -> str:
    """The matrix as Markdown."""
    rows = ["| parameter | here | |", "| --- | --- | --- |"]
    rows += [f"| `{row.name}` | {row.use} | {_remark(row)} |" for row in PARAMETERS.values()]
    return "\n".join(rows) + "\n"


def with_table(document: str) -> str:
    """A document whose table is current."""
    text, count = _BLOCK.subn(lambda _: "\n" + table() + "\n", document)
    assert count == 1, "docs/api.md has lost the marks around its table"
    return text


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
