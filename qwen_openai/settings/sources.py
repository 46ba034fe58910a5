"""Where settings come from: flags beat environment, that beats the file, that the default.

A config file is TOML with the names of `fields`; the environment uses `QWEN_OPENAI_` and the
upper-cased name. An unknown key anywhere is an error that names the nearest known one. Where a
value came from is kept, for `qwen-openai config`.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from qwen_openai.errors import StartupError
from qwen_openai.settings.checks import check_addresses
from qwen_openai.settings.fields import ENV_PREFIX, Settings

# Names with our prefix that are read elsewhere: the config file's path, the address that `chat` and
# the examples call, and the tests' data folder.
_OTHER_VARIABLES = frozenset({"QWEN_OPENAI_CONFIG", "QWEN_OPENAI_BASE_URL", "QWEN_OPENAI_SHARED"})
_SECRETIVE = frozenset({"api_key", "upstreams"})


def variable_of(name: str) -> str:
    """Return the environment variable that sets a field."""
    return ENV_PREFIX + name.upper()


def flag_of(name: str) -> str:
    """Return the command-line flag that sets a field."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, slots=True)
class Loaded:
    """Settings, where each value came from ("default", a file, a variable or a flag), and the
    config file that was read, None where there was none."""

    settings: Settings
    origin: Mapping[str, str]
    config: Path | None = None
    _flags: Mapping[str, object] = field(default_factory=dict)
    _environ: Mapping[str, str] = field(default_factory=dict)

    def again(self) -> "Loaded":
        """Read the same sources once more. Raises StartupError as `load` does."""
        return load(self._flags, environ=self._environ, config=self.config)


def load(
    flags: Mapping[str, object] | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    config: Path | None = None,
) -> Loaded:
    """Merge file, environment and flags (None values mean "not given") into Settings.

    Raises StartupError, in one sentence with a fix, for an unreadable file, an unknown key or a
    value out of range.
    """
    flags = {} if flags is None else flags
    environ = os.environ if environ is None else environ
    if config is None and environ.get("QWEN_OPENAI_CONFIG"):
        config = Path(environ["QWEN_OPENAI_CONFIG"])
    values: dict[str, object] = {}
    origin = dict.fromkeys(Settings.model_fields, "default")
    for source in (_from_file(config), _from_environ(environ), _from_flags(flags)):
        for name, (value, where) in source.items():
            values[name] = value
            origin[name] = where
    try:
        settings = Settings(**values)  # type: ignore[arg-type]  # validated by pydantic on the way in
    except ValidationError as error:
        raise _explain(error, values, origin) from None
    check_addresses(settings)
    return Loaded(settings, origin, config, flags, environ)


def _from_file(path: Path | None) -> dict[str, tuple[object, str]]:
    if path is None:
        return {}
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartupError(
            f"The config file {path} cannot be read: {error.strerror}.",
            fix="Check the path given with --config or QWEN_OPENAI_CONFIG.",
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartupError(
            f"The config file {path} is not valid TOML: {error}.", fix="Mend the line it names."
        ) from None
    for name in content:
        _check_known(name, f"in {path}", name)
    return {name: (value, str(path)) for name, value in content.items()}


def _from_environ(environ: Mapping[str, str]) -> dict[str, tuple[object, str]]:
    found: dict[str, tuple[object, str]] = {}
    for variable, value in environ.items():
        if not variable.startswith(ENV_PREFIX) or variable in _OTHER_VARIABLES:
            continue
        name = variable.removeprefix(ENV_PREFIX).lower()
        _check_known(name, "in the environment", variable)
        # Set but empty means not set, as in most programs; for the key that would open the door.
        if value != "" or name == "api_key":
            found[name] = (value, variable)
    return found


def _from_flags(flags: Mapping[str, object]) -> dict[str, tuple[object, str]]:
    return {
        name: (value, "MODEL" if name == "model" else flag_of(name))
        for name, value in flags.items()
        if value is not None
    }


def _check_known(name: str, where: str, shown: str) -> None:
    if name in Settings.model_fields:
        return
    near = difflib.get_close_matches(name, Settings.model_fields, n=1, cutoff=0.5)
    hint = (variable_of(near[0]) if shown.isupper() else near[0]) if near else None
    raise StartupError(
        f"Unknown setting {shown!r} {where}.",
        fix=f"Did you mean {hint!r}?" if hint else "`qwen-openai config` lists all settings.",
    )


def _explain(
    error: ValidationError, values: Mapping[str, object], origin: Mapping[str, str]
) -> StartupError:
    first = error.errors(include_url=False, include_input=False)[0]
    name, *inside = first["loc"]
    name = str(name)
    # What holds secrets, or may, is not repeated: a URL can have a password in it.
    given = "what it is" if name in _SECRETIVE else repr(values[name])
    reason = _lower_first(first["msg"].removeprefix("Value error, "))
    where = f" at {_place(inside)}" if inside else ""
    return StartupError(
        f"The setting {name!r} cannot be {given} (from {origin[name]}): {reason}{where}.",
        fix=f"Its meaning: {Settings.model_fields[name].description}.",
    )


def _place(inside: Sequence[str | int]) -> str:
    """Say which part of a setting: "number 2, url" for the URL of its second entry."""
    return ", ".join(f"number {step + 1}" if isinstance(step, int) else step for step in inside)


def _lower_first(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
