"""Which upstream has seen the beginning of a conversation, and so has it in its cache.

A conversation is known by hashes of its beginnings, not by its words; what is kept is bounded.
Knows labels of upstreams, nothing of their state.
"""

from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from qwen_openai.core import Job, Message, RawPrompt

Trail = Sequence[bytes]
"""Hashes of a prompt's beginnings, the shortest first."""

# A text is told from others by so much of its head, of its tail, and its length; once that much of
# a conversation has been read, by little of each. Hashing the most takes half a millisecond.
_MOST_OF_ONE = 64 * 1024
_MOST_OF_ALL = 256 * 1024
_LITTLE = 128
_BLOCK = 1024
_MOST_BLOCKS = 128
_MOST_ID_BLOCKS = 32
_KEPT = 16_384
# Longest beginnings of one conversation that are remembered: the next turn goes on from the last,
# an edited or repeated one from a few before.
_REMEMBERED = 16
_DIGEST = 16


class Affinity:
    """A bounded memory of beginnings, the least recently used forgotten first."""

    def __init__(self, most: int = _KEPT) -> None:
        self._most = most
        self._labels: OrderedDict[bytes, str] = OrderedDict()

    def __len__(self) -> int:
        return len(self._labels)

    def find(self, trail: Trail) -> str | None:
        """Return the upstream that has seen the longest of these beginnings, by its label."""
        for digest in reversed(trail):
            label = self._labels.get(digest)
            if label is not None:
                return label
        return None

    def remember(self, trail: Trail, label: str) -> None:
        """Note that this upstream has the beginnings now."""
        for digest in trail[-_REMEMBERED:]:
            self._labels[digest] = label
            self._labels.move_to_end(digest)
        while len(self._labels) > self._most:
            self._labels.popitem(last=False)


def trail_of(job: Job, model: str) -> Trail:
    """Return the hashes of a job's beginnings, for one model.

    Messages at the head that only set the scene make none of their own: what all conversations
    share is soon in every cache, and would draw all of them to one upstream.
    """
    rolling = blake2b(model.encode(), digest_size=_DIGEST)
    trail: list[bytes] = []
    if job.prompt is not None:
        for block in _blocks(job.prompt):
            rolling.update(block)
            trail.append(rolling.digest())
        return trail
    left = _MOST_OF_ALL
    spoken = False
    for message in job.messages:
        told = _told(message, left)
        left -= len(told)
        rolling.update(told.encode("utf-8", "surrogatepass"))
        spoken = spoken or message.role != "system"
        if spoken:
            trail.append(rolling.digest())
    return trail


def _told(message: Message, left: int) -> str:
    """Return what a message is known by. Lengths keep two sequences of texts from being one."""
    content = message.content
    if len(content) > _LITTLE:
        content = _cut(content, left)
    told = f"{message.role}{len(message.content)}:{content}"
    for call in message.tool_calls:
        arguments = _cut(call.arguments, left)
        told += f"call {len(call.name)}:{call.name}{len(call.arguments)}:{arguments}"
    return told


def _cut(text: str, left: int) -> str:
    most = min(max(left, _LITTLE), _MOST_OF_ONE)
    if len(text) <= most:
        return text
    half = most // 2
    return text[:half] + text[-half:]


def _blocks(prompt: RawPrompt) -> Iterator[bytes]:
    text = prompt.text
    most = _BLOCK * (_MOST_BLOCKS if isinstance(text, str) else _MOST_ID_BLOCKS)
    for start in range(0, min(len(text), most), _BLOCK):
        block = text[start : start + _BLOCK]
        if isinstance(block, str):
            yield block.encode("utf-8", "surrogatepass")
        else:
            yield array("q", block).tobytes()
