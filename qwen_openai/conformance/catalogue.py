"""All facts, in the order in which they are tried."""

from qwen_openai.conformance import answers, calls, clients, refusals, streams
from qwen_openai.conformance.fact import Fact

FACTS: tuple[Fact, ...] = (
    *answers.FACTS,
    *streams.FACTS,
    *calls.FACTS,
    *clients.FACTS,
    *refusals.FACTS,
)
