"""What picks the tokens of a whole batch at each step, in transformers' place.

transformers hands the logits of all requests to one processor and takes the likeliest token of what
comes back: the processor picks by the rules of each request, and hands back rows in which the
picked token is the likeliest. Works in the thread of transformers' loop.
"""

import time
from collections.abc import Callable

import torch
from transformers import LogitsProcessorList
from transformers.generation.continuous_batching.cb_logits_processors import (
    ContinuousBatchingLogitsProcessor,
)
from transformers.generation.continuous_batching.requests import FutureRequestState

from qwen_openai.engines.sampling import Picked, Rules, pick_all
from qwen_openai.engines.transformers.track import News, Track
from qwen_openai.errors import EngineFailed

TRACK = "track"
"""The keyword by which a request brings its track."""

Deliver = Callable[[list[tuple[Track, News]]], None]


class BatchPicker(ContinuousBatchingLogitsProcessor):
    """Picks a token for each request of a step.

    ``beat`` is when it was last called, by `time.monotonic`; ``tracks`` are those of the step."""

    def __init__(self, deliver: Deliver) -> None:
        """``deliver`` takes the news of a step, those that the loop is to go on without too."""
        self.beat = time.monotonic()
        self.tracks: list[Track] = []
        self._deliver = deliver
        self.supported_kwargs = {TRACK: Track}
        self.ignored_kwargs = ()

    def processors(self, *_: object, **__: object) -> LogitsProcessorList:
        """What a model's `_get_logits_processor` is to return."""
        return LogitsProcessorList([self])

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        int32_tensor.zero_()

    def prepare_tensor_args(
        self, requests_with_new_token: list[FutureRequestState]
    ) -> torch.Tensor:
        """Remember whose logits come next; transformers asks before each pass of the model."""
        self.beat = time.monotonic()
        self.tracks = [one.state.logit_processor_kwargs[TRACK] for one in requests_with_new_token]
        return torch.zeros(len(self.tracks), dtype=torch.int32)

    def __call__(self, scores: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """``scores`` are the logits, a row a request."""
        picked = self._pick(scores[: len(self.tracks)])
        tokens = torch.tensor(picked, device=scores.device).unsqueeze(1)
        # transformers takes the largest of what it gets back.
        scores[: len(self.tracks)].scatter_(1, tokens, torch.inf)
        return scores

    def _pick(self, logits: torch.Tensor) -> list[int]:
        """Return a token for each request; one that has failed gets any."""
        able = []
        failed: list[tuple[Track, News]] = []
        rules: list[Rules] = []
        for row, track in enumerate(self.tracks):
            try:
                rules.append(track.rules())
                able.append(row)
            except EngineFailed as failure:
                failed.append((track, failure))
        rows = logits if len(able) == len(self.tracks) else logits[able]
        tracks = [self.tracks[row] for row in able]
        picked = pick_all(rows, [track.sampler for track in tracks], rules)
        tokens = [0] * len(self.tracks)
        news = list(zip(tracks, map(_taken, tracks, picked), strict=True))
        for row, (_, one) in zip(able, news, strict=True):
            if isinstance(one, Picked):
                tokens[row] = one.token
        self._deliver([*news, *failed])
        return tokens


def _taken(track: Track, picked: Picked | EngineFailed) -> News:
    """Let the track go on with its token; a failure where it cannot."""
    if isinstance(picked, EngineFailed):
        return picked
    try:
        track.take(picked.token)
    except EngineFailed as failure:
        return failure
    return picked
