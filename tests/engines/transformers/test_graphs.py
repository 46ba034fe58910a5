"""Graphs, with a stand-in for the card: recorded and replayed steps pick what plain steps pick."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.requests import FutureRequestState, RequestState

from qwen_openai.core import Sampling
from qwen_openai.engines.masks import TokenMasks
from qwen_openai.engines.sampling import Picked
from qwen_openai.engines.torch_model.limits import Limits
from qwen_openai.engines.torch_model.load import Loaded, load
from qwen_openai.engines.transformers.batch import BatchPicker
from qwen_openai.engines.transformers.graphs import (
    LatePicker,
    batching,
    flash_attention,
    picker_for,
    use_graphs,
    warm_up,
)
from qwen_openai.engines.transformers.rounds import TRACK
from qwen_openai.engines.transformers.track import News, Track
from qwen_openai.grammars import build
from tests.engines.transformers.card import Card

PAGE = 16
CUDA = torch.device("cuda")
FRUIT = build.whole(build.choice(["a red apple", "a green pear"]), "none")


@pytest.fixture(scope="module")
def loaded(qwen2_folder: Path, qwen_home: Path) -> Loaded:
    return load(qwen2_folder, "cpu", "float32", qwen_home)


@pytest.fixture(scope="module")
def masks(loaded: Loaded) -> TokenMasks:
    return TokenMasks(loaded.bpe, loaded.model.config.vocab_size, _ends(loaded))


def _ends(loaded: Loaded) -> frozenset[int]:
    return frozenset([loaded.bpe.control["<|im_end|>"]])


@dataclass(frozen=True, slots=True)
class Case:
    """An answer to ask for: ``at`` is the step before which it arrives."""

    prompt: int
    length: int
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))
    grammar: str = ""
    at: int = 0


SEEDED = Sampling(seed=7, top_p=0.95)
CASES = (
    Case(5, 12),
    Case(21, 9, SEEDED),
    Case(3, 30, grammar=FRUIT),
    Case(8, 6, replace(SEEDED, logprobs=3, presence_penalty=0.7), at=3),
    Case(30, 10, Sampling(temperature=0.0, logprobs=2), at=4),
    Case(2, 5, replace(SEEDED, seed=8, repetition_penalty=1.2), at=11),
)


class Batch:
    """Answers of one model, step by step in the thread of the test. ``news`` is what each step had
    for whom; ``logged`` is the warnings of the start."""

    def __init__(
        self, loaded: Loaded, masks: TokenMasks, card: Card | None = None, pages: int = 40
    ) -> None:
        self.news: list[list[tuple[Track, News]]] = []
        self._masks, self._ends = masks, _ends(loaded)
        self._vocabulary: int = loaded.model.config.vocab_size
        self.picker = picker_for(loaded.model, 4, card is not None, self.news.append)
        config = ContinuousBatchingConfig(
            page_size=PAGE,
            num_blocks=pages,
            max_batch_tokens=24,
            max_requests_per_batch=4,
            max_memory_percent=1.0,
            use_async_batching=False,
            per_request_processors=True,
            **batching(False, False, 128, PAGE),
        )
        # As small as on a card with flash attention, so that there are many shapes.
        config.q_padding_interval_size, config.kv_padding_interval_size = 8, PAGE
        model: Any = loaded.model
        model._get_logits_processor = self.picker.processors
        own = GenerationConfig.from_dict({"do_sample": False, "eos_token_id": -1})
        self.manager = ContinuousBatchingManager(model, own, config)
        del model._get_logits_processor
        self.manager.logit_processor.tensors_required = 1
        if card is not None:
            self.manager.batch_processor = self.manager._create_batch_processor()
            card.install(self.manager)
        with capture_logs() as logged:
            warm_up(self.manager, self.picker)
        self.logged = [one for one in logged if one["log_level"] == "warning"]
        if self.manager.batch_processor is None:
            self.manager.batch_processor = self.manager._create_batch_processor()
        self.processor: Any = self.manager.batch_processor

    def uses_graphs(self) -> bool:
        return bool(self.processor.model_runner.use_cuda_graph_varlen)

    def track(self, number: int, case: Case) -> Track:
        """Make what ``case`` asks for; ``number`` makes its prompt."""
        prompt = [(31 * number + 7 * place) % 200 for place in range(case.prompt)]
        ends = self._ends if case.grammar else frozenset[int]()
        mask = self._masks.start(case.grammar) if case.grammar else None
        limits = Limits(case.length, ends)
        device = torch.device("cpu")
        track = Track.of(prompt, case.sampling, limits, mask, device, self._vocabulary)
        track.id = f"answer-{number}"
        return track

    def add(self, track: Track) -> None:
        brought: dict[str, Any] = {TRACK: track}
        self.manager.add_request(
            [*track.prompt, *track.tokens],
            track.id,
            track.limits.max_tokens - len(track.tokens),
            eos_token_id=sorted(track.limits.stop) or [-1],
            **brought,
        )

    def step(self) -> bool:
        """Do a step, if there is one to do."""
        if not self.processor.prepare_next_batch():
            return False
        self.processor._generation_step(self.manager.model)
        self.processor.update_batch()
        return True

    def run(self, cases: tuple[Case, ...] = CASES) -> list[Track]:
        """Make all answers."""
        tracks = [self.track(number, case) for number, case in enumerate(cases)]
        step = 0
        while True:
            for track, case in zip(tracks, cases, strict=True):
                if case.at == step:
                    self.add(track)
            if not self.step() and step >= max(case.at for case in cases):
                return tracks
            step += 1

    def picked(self, track: Track) -> list[Picked]:
        mine = [one for news in self.news for whom, one in news if whom is track]
        assert all(isinstance(one, Picked) for one in mine)
        return [one for one in mine if isinstance(one, Picked)]


MakeBatch = Callable[..., Batch]


@pytest.fixture
def make_batch(loaded: Loaded, masks: TokenMasks) -> MakeBatch:
    return lambda card=None, pages=40: Batch(loaded, masks, card, pages)


@pytest.fixture(scope="module")
def plain(loaded: Loaded, masks: TokenMasks) -> list[list[Picked]]:
    """The tokens of CASES, made without graphs."""
    batch = Batch(loaded, masks)
    assert type(batch.picker) is BatchPicker
    return [batch.picked(track) for track in batch.run()]


def same(picked: list[Picked], expected: list[Picked]) -> None:
    assert [one.token for one in picked] == [one.token for one in expected]
    for one, other in zip(picked, expected, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-3)
        assert [pair[0] for pair in one.top] == [pair[0] for pair in other.top]
        values = [pair[1] for pair in other.top]
        assert [pair[1] for pair in one.top] == pytest.approx(values, abs=1e-3)


class TestPicking:
    def test_each_answer_is_as_without_graphs(
        self, make_batch: MakeBatch, plain: list[list[Picked]]
    ) -> None:
        card = Card()
        batch = make_batch(card)
        before = card.recorded
        tracks = batch.run()
        for track, expected in zip(tracks, plain, strict=True):
            same(batch.picked(track), expected)
            # What picks, and what a grammar knows, went on once for each token.
            assert track.tokens == [one.token for one in expected]
        # Some shapes were met first while answers were made, and most steps were replayed.
        assert card.recorded > before
        assert card.replayed > card.recorded

    def test_a_step_has_news_once_for_each_request(self, make_batch: MakeBatch) -> None:
        batch = make_batch(Card())
        batch.run()
        assert batch.news
        for news in batch.news:
            assert len({track.id for track, _ in news}) == len(news)

    def test_rows_that_fill_a_graph_up_are_nobodys(self, make_batch: MakeBatch) -> None:
        batch = make_batch(Card())
        assert isinstance(batch.picker, LatePicker)
        batch.add(batch.track(0, Case(5, 4)))
        assert batch.step()
        assert [name for name, _ in batch.picker.rows] == ["answer-0"]
        assert [len(news) for news in batch.news] == [1]

    def test_what_only_warms_up_gets_no_token(self) -> None:
        news: list[object] = []
        picker = LatePicker(news.append, torch.zeros(2, 8))
        made_up = FutureRequestState(RequestState("warm", [0]), True, {}, 1)
        assert picker.prepare_tensor_args([made_up]).numel() == 0
        picker(torch.ones(2, 8), torch.zeros(2))
        output = torch.full((1, 3), 9, dtype=torch.int32)
        picker.pick(output)
        assert output.tolist() == [[9, 9, 9]]
        assert not picker.rows
        assert not news

    def test_a_full_cache_starts_answers_anew(self, make_batch: MakeBatch) -> None:
        cases = tuple(Case(14 + number, 30, replace(SEEDED, seed=number)) for number in range(4))
        roomy, card = make_batch(), Card()
        small = make_batch(card, pages=7)
        manager = small.processor.offloading_manager
        start_anew = manager.offload_requests
        times: list[None] = []

        def counted() -> bool:
            times.append(None)
            return bool(start_anew())

        manager.offload_requests = counted
        expected, tracks = roomy.run(cases), small.run(cases)
        assert times
        assert card.replayed
        assert [one.tokens for one in tracks] == [one.tokens for one in expected]

    def test_answers_go_on_after_the_loop_has_started_again(
        self, make_batch: MakeBatch, plain: list[list[Picked]]
    ) -> None:
        batch = make_batch(Card())
        tracks = [batch.track(number, case) for number, case in enumerate(CASES[:3])]
        for track in tracks:
            batch.add(track)
        for _ in range(4):
            assert batch.step()
        batch.processor.reset()
        for track in tracks:
            batch.add(track)
        while batch.step():
            pass
        for track, expected in zip(tracks, plain, strict=False):
            assert track.tokens == [one.token for one in expected]


class TestStart:
    def test_graphs_are_tried_and_used(self, make_batch: MakeBatch) -> None:
        card = Card()
        batch = make_batch(card)
        assert batch.uses_graphs()
        assert not batch.logged
        assert card.replayed
        # The answers of the trial were nobody's, and nothing of them is left.
        assert not batch.news
        assert batch.manager.get_result(timeout=0) is None
        assert not batch.processor.has_pending_requests()

    @pytest.mark.parametrize(
        ("card", "why"),
        [
            (Card(wrong="idle"), "the logits of replayed steps"),
            (Card(wrong="blind"), "the logits of replayed steps"),
            (Card(fails_at=1), "out of memory"),
            (Card(fails_at=3), "out of memory"),
        ],
        ids=["idle", "blind", "fails-warming-up", "fails-in-the-trial"],
    )
    def test_graphs_that_fail_are_not_used(
        self, make_batch: MakeBatch, plain: list[list[Picked]], card: Card, why: str
    ) -> None:
        batch = make_batch(card)
        assert not batch.uses_graphs()
        (line,) = batch.logged
        assert line["event"].startswith("CUDA graphs are not used")
        assert why in line["why"]
        done = card.replayed
        for track, expected in zip(batch.run(), plain, strict=True):
            same(batch.picked(track), expected)
        assert card.replayed == done

    def test_one_that_fails_later_costs_no_answer(
        self, make_batch: MakeBatch, plain: list[list[Picked]]
    ) -> None:
        probe = Card()
        make_batch(probe)
        batch = make_batch(Card(fails_at=probe.recorded + 1))
        assert batch.uses_graphs()
        with capture_logs() as logged:
            tracks = batch.run()
        assert not batch.uses_graphs()
        assert len(logged) == 1
        for track, expected in zip(tracks, plain, strict=True):
            same(batch.picked(track), expected)

    def test_a_model_that_fails_is_not_the_graphs_fault(self, make_batch: MakeBatch) -> None:
        batch = make_batch(Card())
        batch.add(batch.track(0, Case(5, 4)))

        def broken(*_: object, **__: object) -> None:
            raise RuntimeError("broken")

        model: Any = batch.manager.model
        assert batch.processor.prepare_next_batch()
        with model.register_forward_pre_hook(broken), pytest.raises(RuntimeError, match="broken"):
            batch.processor._generation_step(model)
        assert batch.uses_graphs()

    def test_none_are_used_where_no_step_can_be_recorded(self, make_batch: MakeBatch) -> None:
        class Partly(Card):
            """Without the kernel that reads pages, only steps that read prompts are there."""

            def install(self, manager: ContinuousBatchingManager) -> None:
                super().install(manager)
                processor: Any = manager.batch_processor
                processor.model_runner.use_cuda_graph_decode = True
                processor.model_runner.use_cuda_graph_varlen = False

        batch = make_batch(Partly())
        (line,) = batch.logged
        assert "recorded" in line["why"]
        assert not batch.processor.model_runner.pad_inputs


class TestDecision:
    @pytest.mark.parametrize(
        ("device", "flash", "wish"),
        [
            (torch.device("cpu"), True, None),
            (torch.device("mps"), True, None),
            (CUDA, False, None),
            (CUDA, False, True),
            (CUDA, True, False),
        ],
    )
    def test_none(self, device: torch.device, flash: bool, wish: bool | None) -> None:
        assert not use_graphs(device, flash, wish)

    def test_where_there_is_all_they_need(self) -> None:
        assert use_graphs(CUDA, True)

    def test_a_cpu_has_no_flash_attention(self, loaded: Loaded) -> None:
        assert not flash_attention(loaded.model)

    def test_what_transformers_is_told(self) -> None:
        told = ContinuousBatchingConfig(**batching(True, True, 1025, 256))
        assert told.use_cuda_graph == (False, True)
        assert told.max_blocks_per_request == 5
        without = ContinuousBatchingConfig(**batching(True, False, 1024, 256))
        assert without.use_cuda_graph == (False, False)
        assert without.max_blocks_per_request == 4
        plain = ContinuousBatchingConfig(**batching(False, False, 1024, 32))
        assert plain.use_cuda_graph is False
        assert plain.max_blocks_per_request == 0
        assert not plain.auto_switch_to_flash
