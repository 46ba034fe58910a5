"""`python -m qwen_openai.cli.extras ARGUMENTS`: which extra `qwen-openai serve ARGUMENTS` needs.

Prints "transformers" or nothing. `scripts/serve` asks before it fetches gigabytes of torch that
most models do without. Looks at settings and names only: nothing is fetched, and it never fails;
what is wrong with the arguments is for the command itself to say.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import typer

from qwen_openai import settings
from qwen_openai.cli.commands import build
from qwen_openai.errors import StartupError
from qwen_openai.models.catalogue import CATALOGUE
from qwen_openai.models.checkpoint import is_checkpoint
from qwen_openai.models.layout import default_home, repository_folder
from qwen_openai.models.reference import PathRef, Reference, RepositoryRef, parse
from qwen_openai.settings import Settings

TRANSFORMERS = "transformers"
_GGUF = "*.[gG][gG][uU][fF]"


def needed_extra(arguments: Sequence[str]) -> str | None:
    """Return the extra that ``qwen-openai serve`` with these arguments needs, or None."""
    if not {"-h", "--help"}.isdisjoint(arguments):
        return None
    try:
        chosen = _settings(arguments)
        if not chosen.runs_here:
            return None
        if chosen.engine != "auto":
            return TRANSFORMERS if chosen.engine in ("qwen_chat", "transformers") else None
        home = chosen.home or default_home()
        return TRANSFORMERS if _has_no_gguf(parse(chosen.model, CATALOGUE), home) else None
    except (StartupError, OSError):
        return None


def _settings(arguments: Sequence[str]) -> Settings:
    """What `serve` would load. Its own parser reads the arguments; resilient means that nothing is
    shown or refused, and a line that it cannot read gives the defaults."""
    # --debug goes anywhere on the line; `main` takes it out as well.
    line = ["serve", *(argument for argument in arguments if argument != "--debug")]
    program = typer.main.get_command(build(line))
    with program.make_context("qwen-openai", line, resilient_parsing=True) as context:
        name, command, rest = program.resolve_command(context, line)  # type: ignore[attr-defined]  # a group's own
    values = command.make_context(name, rest, parent=context, resilient_parsing=True).params
    config = values.get("config")
    given = {name: values.get(name) for name in Settings.model_fields}
    return settings.load(given, config=Path(config) if config else None).settings


def _has_no_gguf(reference: Reference, home: Path) -> bool:
    if isinstance(reference, PathRef):
        return is_checkpoint(reference.path)
    if not isinstance(reference, RepositoryRef) or reference.file is not None:
        return False
    # A repository that was pulled shows what it holds; of others the name tells by custom. A folder
    # with a plus sign holds one file of a repository, see `models.layout`.
    pulled = repository_folder(reference, home).glob("*/files")
    whole = (files for files in pulled if "+" not in files.parent.name)
    holds_gguf = any(any(files.rglob(_GGUF)) for files in whole)
    return not reference.repository.lower().endswith("-gguf") and not holds_gguf


if __name__ == "__main__":
    sys.stdout.write(needed_extra(sys.argv[1:]) or "")
