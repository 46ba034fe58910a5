"""What Prometheus reads: counts and times of requests, added up as each one ends."""

from qwen_openai.observe.record import Record


class Metrics:
    """The numbers of one gateway."""

    def __init__(self) -> None:
        self.in_flight = 0

    def begin(self) -> None:
        """A request has come."""
        self.in_flight += 1

    def observe(self, record: Record) -> None:
        """Take a finished request, which `begin` was told of."""
        self.in_flight -= 1
