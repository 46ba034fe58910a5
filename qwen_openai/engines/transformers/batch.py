"""What picks the tokens of a whole batch at each step, in transformers' place.

transformers hands the logits of all requests to one processor and takes the likeliest token of what
comes back: the processor picks by the rules of each request, and hands back rows in which the
picked token is the likeliest. Works in the thread of transformers' loop.
"""

from collections.abc import Callable

import structlog
import torch
from transformers import LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
)
from transformers.generation.continuous_batching.requests import FutureRequestState

from qwen_openai.engines.sampling import Picked, Rules, pick_all
from qwen_openai.engines.transformers.rounds import TRACK
from qwen_openai.engines.transformers.track import News, Track
from qwen_openai.errors import EngineFailed
from qwen_openai.observe.logs import traced

__all__ = ["TRACK", "BatchPicker", "Deliver"]

Deliver = Callable[[list[tuple[Track, News]]], None]


class BatchPicker(ContinuousBatchingLogitsProcessor):
    """Picks a token for each request of a step.

    ``is_picking`` is true from the logits of a step to its tokens: where a step fails then, some
    answers have used up their chance for a token that they did not get."""

    def __init__(self, deliver: Deliver) -> None:
        """``deliver`` takes the news of a step, those that the loop is to go on without too."""
        self.is_picking = False
        self._tracks: list[Track] = []
        self._deliver = deliver
        self.supported_kwargs = {TRACK: Track}
        self.ignored_kwargs = ()

    def processors(self, *_: object, **__: object) -> LogitsProcessorList:
        """What a model's `_get_logits_processor` is to return."""
        return LogitsProcessorList([self])

    def reset(self) -> None:
        """Forget the present step."""
        self.is_picking = False
        self._tracks = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(
        self, requests_with_new_token: list[FutureRequestState]
    ) -> torch.Tensor:
        """Remember whose logits come next; transformers asks before each pass of the model."""
        self._tracks = [one.state.logit_processor_kwargs[TRACK] for one in requests_with_new_token]
        return torch.zeros(len(self._tracks), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """``scores`` are the logits, a row a request."""
        tracks, self._tracks = self._tracks, []
        if not tracks:
            return scores
        self.is_picking = True
        news = _pick(tracks, scores[: len(tracks)])
        # At once: what fails from here on takes no token from a reader.
        self._deliver(list(zip(tracks, news, strict=True)))
        self.is_picking = False
        # One that has failed gets any.
        picked = [one.token if isinstance(one, Picked) else 0 for one in news]
        tokens = torch.tensor(picked, dtype=torch.long, device=scores.device).unsqueeze(1)
        # transformers takes the largest of what it gets back.
        scores[: len(tracks)].scatter_(1, tokens, torch.inf)
        return scores


def _pick(tracks: list[Track], logits: torch.Tensor) -> list[News]:
    """Return what each answer goes on with, or why it cannot."""
    rules = [_ruled(track) for track in tracks]
    able = [row for row, one in enumerate(rules) if isinstance(one, Rules)]
    rows = logits if len(able) == len(tracks) else logits[able]
    picked = pick_all(
        rows,
        [tracks[row].sampler for row in able],
        [one for one in rules if isinstance(one, Rules)],
    )
    in_order = iter(picked)
    return [
        one if isinstance(one, EngineFailed) else _taken(track, next(in_order))
        for track, one in zip(tracks, rules, strict=True)
    ]


def _ruled(track: Track) -> Rules | EngineFailed:
    try:
        return track.rules()
    except EngineFailed as failure:
        return failure
    except Exception as error:  # noqa: BLE001  # the edge to a grammar's library: no other answer is to suffer
        return _unruly(error)


def _taken(track: Track, picked: Picked | EngineFailed) -> News:
    """Let the track go on with its token; a failure where it cannot."""
    if isinstance(picked, EngineFailed):
        return picked
    try:
        track.take(picked.token)
    except EngineFailed as failure:
        return failure
    except Exception as error:  # noqa: BLE001  # the edge to a grammar's library: no other answer is to suffer
        return _unruly(error)
    return picked


def _unruly(error: Exception) -> EngineFailed:
    structlog.get_logger().error("a grammar failed", stack=traced(error))
    return EngineFailed(
        "The answer could not be held to its grammar; the server's log has the details. Ask for a"
        " simpler one, or send the request again."
    )
