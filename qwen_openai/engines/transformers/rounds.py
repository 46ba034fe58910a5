"""transformers' own scheduler, which also tells what the loop is at.

Works in the thread of transformers' loop, once a round: new requests come in, cancelled ones go,
and the next step's are chosen. What it remembers may be read from any thread.
"""

import time

from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState
from transformers.generation.continuous_batching.scheduler import FIFOScheduler

from qwen_openai.engines.transformers.track import Track

TRACK = "track"
"""The keyword by which a request brings its track."""


class Rounds(FIFOScheduler):
    """Chooses as transformers does.

    ``round`` is when the last round began and ``stepped`` when the last one with a step did, by
    `time.monotonic`; ``step`` has the tracks of the present step, those whose prompts are still
    read among them.
    """

    def reset(self) -> None:
        super().reset()
        self.round = self.stepped = time.monotonic()
        self.step: list[Track] = []

    def clear_cancelled_requests(self) -> list[RequestState]:
        """The beginning of a round, also of one that finds nothing to do."""
        self.round = time.monotonic()
        self.step = []
        gone: list[RequestState] = super().clear_cancelled_requests()
        # Where the cache was full, transformers lets nobody in until an answer is complete: one
        # that has left makes room too, and the last one would leave the rest waiting for ever.
        if gone or not self.active_requests:
            self.block_new_requests = False
        return gone

    def schedule_batch(
        self, token_budget: int, cache_budget: int
    ) -> tuple[list[FutureRequestState] | None, bool, int, int]:
        chosen: tuple[list[FutureRequestState] | None, bool, int, int]
        chosen = super().schedule_batch(token_budget, cache_budget)
        if chosen[0]:
            self.stepped = time.monotonic()
            self.step = [_begun(future.state) for future in chosen[0]]
        return chosen


def _begun(state: RequestState) -> Track:
    """The track of a request that takes part in a step."""
    track: Track = state.logit_processor_kwargs[TRACK]
    if track.cached_tokens is None:
        # Where it starts is what the cache held of its prompt.
        track.cached_tokens = state.position_offset
    return track
