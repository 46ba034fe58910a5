"""A model's own chat template: compiled and run in a jinja2 sandbox set up like Hugging Face's.

Templates come out of model files only, never out of a request. What a template may spend is
bounded, so that a hostile one ends in an error and not in a hang. Knows nothing of tokens.

Source of the set-up: what transformers gives chat templates (`trim_blocks`, `lstrip_blocks`, loop
controls, `raise_exception`, `tojson`, `strftime_now`, the `generation` block).
"""

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from datetime import datetime

from jinja2 import TemplateError, meta, nodes, pass_context
from jinja2.exceptions import SecurityError, TemplateRuntimeError
from jinja2.ext import Extension, LoopControlExtension
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qwen_openai.errors import InvalidRequest, StartupError

Turn = Mapping[str, object]

_MAX_SOURCE = 2**20
_MAX_STEPS = 10_000_000
_CALL_STEPS = 20
_MAX_SECONDS = 10.0
_MAX_LENGTH = 64 * 2**20
_MAX_BITS = 4096
# Names with a blank in them: no template can spell them.
_BUDGET = "render budget"
_BOUNDED = "bounded loop"
_SIZED = "bounded text"

# What ensure_ascii escapes, but for surrogates that stand alone.
_ESCAPED = re.compile(r"[^\x00-\x7e\ud800-\udfff]")

# What running foreign template code is known to raise, beside jinja2's own errors.
_RENDER_ERRORS = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


class ChatTemplate:
    """A compiled chat template. Stateless: may be rendered by several threads at once.

    ``constants`` are all the texts that stand in the template itself: what it can write that no
    message brought. ``variables`` are the names that it expects from outside.
    """

    def __init__(self, source: str) -> None:
        """Compile ``source``. Raises StartupError when it is no template or far too large."""
        if len(source) > _MAX_SOURCE:
            raise _bad_template(f"it is {len(source):,} characters long")
        environment = _Environment()
        try:
            tree = environment.parse(source)
            self.constants = frozenset(_constants(tree))
            self.variables = frozenset(meta.find_undeclared_variables(tree))
            _bound(tree, environment)
            code = environment.compile(tree)
            self._template = environment.template_class.from_code(
                environment, code, environment.make_globals(None)
            )
        except (TemplateError, RecursionError, SyntaxError, ValueError, MemoryError) as exc:
            raise _bad_template(_short(exc)) from exc

    def render(
        self,
        turns: Sequence[Turn],
        *,
        generation_prompt: bool,
        tools: Sequence[Mapping[str, object]] | None = None,
        options: Mapping[str, object] | None = None,
    ) -> str:
        """Return the text for ``turns`` (`role`, `content` and what else a message of the chat
        completions API has), with the assistant's opening if asked.

        ``tools`` have the shape of that API too; ``options`` are further variables. Raises
        InvalidRequest when the template refuses the messages or spends too much.
        """
        variables: dict[str, object] = {
            **(options or {}),
            "messages": turns,
            "tools": tools or None,
            "documents": None,
            "add_generation_prompt": generation_prompt,
            _BUDGET: _Budget(),
        }
        pieces: list[str] = []
        length = 0
        try:
            for piece in self._template.generate(variables):
                pieces.append(piece)
                length += len(piece)
                if length > _MAX_LENGTH:
                    raise SecurityError("the rendered prompt is too long")
        except _RENDER_ERRORS as exc:
            raise InvalidRequest(
                f"The model's chat template cannot render these messages: {_short(exc)}.",
                param="messages",
            ) from exc
        return "".join(pieces)


class _Budget:
    """What one rendering has spent: loop rounds, calls (dearer), operators; and time."""

    def __init__(self) -> None:
        self._steps = 0
        self._deadline = time.monotonic() + _MAX_SECONDS

    def charge(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise SecurityError("the chat template loops too often")
        if time.monotonic() > self._deadline:
            raise SecurityError("the chat template takes too long")


class _Environment(ImmutableSandboxedEnvironment):
    """The sandbox, with every call and every growing operator charged or measured."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[LoopControlExtension, _Generation],
        )
        self.filters["tojson"] = _to_json
        self.filters[_BOUNDED] = _bounded
        self.filters[_SIZED] = _sized
        self.globals["raise_exception"] = _raise_exception
        self.globals["strftime_now"] = _strftime_now

    # jinja2's own signature, with names that no keyword of a template can clash with.
    def call(
        __self,
        __context: Context,
        __obj: Callable[..., object],
        *args: object,
        **kwargs: object,
    ) -> object:
        _charge(__context, _CALL_STEPS)
        return _sized(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        if operator == "**":
            _check_power(left, right)
        if operator == "*":
            _check_product(left, right)
        _charge(context, 1)
        return _sized(super().call_binop(context, operator, left, right))


class _Generation(Extension):
    """`{% generation %}` marks the assistant's text for training; here its body just stands."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 reads it as a class attribute, and types it set

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _constants(tree: nodes.Template) -> Iterator[str]:
    for data in tree.find_all(nodes.TemplateData):
        yield data.data
    for constant in tree.find_all(nodes.Const):
        if isinstance(constant.value, str):
            yield constant.value


def _bound(tree: nodes.Template, environment: ImmutableSandboxedEnvironment) -> None:
    """Route every loop and every `~` through a filter of ours."""
    for loop in list(tree.find_all(nodes.For)):
        loop.iter = nodes.Filter(loop.iter, _BOUNDED, [], [], None, None, lineno=loop.lineno)
    for concat in list(tree.find_all(nodes.Concat)):
        parts = nodes.Concat(concat.nodes, lineno=concat.lineno)
        concat.nodes = [nodes.Filter(parts, _SIZED, [], [], None, None, lineno=concat.lineno)]
    tree.set_environment(environment)


def _charge(context: Context, steps: int) -> None:
    budget = context.get(_BUDGET)
    if isinstance(budget, _Budget):
        budget.charge(steps)


@pass_context
def _bounded(context: Context, items: Iterable[object]) -> Iterable[object]:
    """Return ``items``, charged: at once where their number is known, else one by one."""
    if isinstance(items, Sized):
        _charge(context, len(items))
        return items
    return _charged(context, items)


def _charged(context: Context, items: Iterable[object]) -> Iterator[object]:
    for item in items:
        _charge(context, 1)
        yield item


def _sized(value: object) -> object:
    if isinstance(value, str | list | tuple) and len(value) > _MAX_LENGTH:
        raise SecurityError("the chat template builds too large a value")
    return value


def _check_power(left: object, right: object) -> None:
    if not isinstance(left, int) or not isinstance(right, int):
        return
    if left.bit_length() * abs(right) > _MAX_BITS:
        raise SecurityError("the chat template raises a number to a large power")


def _check_product(left: object, right: object) -> None:
    for value, times in ((left, right), (right, left)):
        if isinstance(value, Sized) and isinstance(times, int) and len(value) * times > _MAX_LENGTH:
            raise SecurityError("the chat template builds too large a value")


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    text = json.dumps(
        value, ensure_ascii=False, indent=indent, separators=separators, sort_keys=sort_keys
    )
    # json's own escapes would spell out the stand-ins of `inert`, which are lone surrogates.
    return _ESCAPED.sub(_escape, text) if ensure_ascii else text


def _escape(match: re.Match[str]) -> str:
    return json.dumps(match.group())[1:-1]


def _raise_exception(message: object) -> None:
    raise TemplateRuntimeError(str(message))


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _short(exc: BaseException) -> str:
    """One line of an error's text, made safe for a message of ours."""
    line = " ".join(str(exc).split())
    # A stand-in of `inert` may be inside: it must not reach a client.
    encodable = line.encode("utf-8", "replace").decode()
    return encodable[:200].rstrip(".") or type(exc).__name__


def _bad_template(reason: str) -> StartupError:
    return StartupError(
        f"The model's chat template cannot be used: {reason}.",
        fix="Use a model file with a working chat template.",
    )
