"""A request of POST / to a Job, with the defaults of the tutorial's model.chat.

Pure. top_p, temperature and the answer's length are the tutorial's; what it left to the model's own
generation config is the family's here, and no system message means the template's own. Its answer
has no place for thoughts: they are switched off, or split off and left out.
"""

from qwen_openai.core import Job, Message, Sampling
from qwen_openai.families import Family
from qwen_openai.protocol.legacy import LegacyRequest

TOP_P = 0.7
TEMPERATURE = 0.95
MAX_TOKENS = 2048


def legacy_job(request: LegacyRequest, *, id: str, model: str, family: Family) -> Job:
    """Return the job: history as turns, oldest first, then the prompt. `max_length` bounds prompt
    and answer together; without it the answer may take 2,048 tokens."""
    messages: list[Message] = []
    for query, answer in request.history:
        messages += (Message("user", query), Message("assistant", answer))
    messages.append(Message("user", request.prompt))
    defaults = family.sampling
    return Job(
        id=id,
        model=model,
        messages=tuple(messages),
        sampling=Sampling(
            temperature=TEMPERATURE if request.temperature is None else request.temperature,
            top_p=TOP_P if request.top_p is None else request.top_p,
            top_k=defaults.top_k,
            min_p=defaults.min_p,
            presence_penalty=defaults.presence_penalty,
            repetition_penalty=defaults.repetition_penalty,
            max_tokens=MAX_TOKENS if request.max_length is None else None,
        ),
        max_total=request.max_length,
        drop_oldest_pairs=True,
        enable_thinking=False if family.thinking == "switched" else None,
        thinks=family.thinking == "always",
        watched=False,
        ignored=request.ignored,
    )
