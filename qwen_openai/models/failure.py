"""The failures that are private to `models`: a source did not deliver, and the next one may."""

from qwen_openai.errors import StartupError


class SourceFailed(StartupError):
    """``message`` is a clause fit to follow "Name: " (no capital, no full stop); ``fix`` is what
    the user could do about this source."""

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message, fix=fix)


class Unreachable(SourceFailed):
    """No connection to the source: the network's fault or the firewall's, not the source's."""

    def __init__(self) -> None:
        super().__init__("cannot be reached", fix="Connect this machine to the network.")
