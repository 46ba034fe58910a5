"""Where log lines go: a file descriptor that may be closed, full or not read, and never makes
anybody wait or fail.

What cannot be written now is held, a bounded amount, and tried again with the next line; above
that the oldest goes, and how many went is said once writing works again. Secrets that have found
their way into a line by an exception's text are struck out here, as a second line of defence:
nothing logs them on purpose.
"""

import os
import re
import select
from collections import deque
from threading import Lock

# Keys as OpenAI's, ours, Groq's, Hugging Face's and Google's begin, the value of an Authorization
# header, and keys in a query string.
_SECRETS = re.compile(
    rb"\b(?:g?sk[-_]|hf_|AIza)[\w-]{8,}"
    rb"|(?<=[Bb]earer )[\w.~+/=-]{4,}"
    rb"|(?<=[?&]key=)[^&\s\"']+|(?<=api_key=)[^&\s\"']+"
)
_STRUCK = b"[secret]"
# One of these is in every line that the expression finds something in. Looking for them costs two
# microseconds, the expression twenty.
_MARKS = (b"sk-", b"sk_", b"hf_", b"AIza", b"earer ", b"key=")

# A pipe takes this much at once or says that it is full (POSIX: PIPE_BUF is at least 512, and 4096
# on Linux); more could block half way.
_ATOMIC = 4096
_MOST_HELD = 256 * 1024


def without_secrets(line: bytes) -> bytes:
    """Return a line in which everything that looks like a key is struck out."""
    for mark in _MARKS:
        if mark in line:
            return _SECRETS.sub(_STRUCK, line)
    return line


class Outlet:
    """A file, as structlog writes to one. Any thread may."""

    def __init__(self, descriptor: int, *, most_held: int = _MOST_HELD) -> None:
        self._descriptor = descriptor
        self._most_held = most_held
        self._held: deque[bytes] = deque()
        self._size = 0
        self._lock = Lock()
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            self._poll.register(descriptor, select.POLLOUT)
        self.lost = 0
        self._told = 0

    def write(self, line: bytes) -> int:
        """Take a line, its end included."""
        with self._lock:
            self._held.append(without_secrets(line))
            self._size += len(self._held[-1])
            self._pass_on()
            if self.lost > self._told and not self._held:
                self._tell()
            while self._size > self._most_held:
                self._size -= len(self._held.popleft())
                self.lost += 1
        return len(line)

    def flush(self) -> None:
        """Nothing is kept that could be written."""

    def _pass_on(self) -> None:
        while self._held and self._is_open():
            line = self._held[0]
            try:
                written = os.write(self._descriptor, line[:_ATOMIC])
            except OSError:
                # A full disk, a closed pipe: there is nobody to tell.
                return
            self._size -= written
            if written < len(line):
                self._held[0] = line[written:]
            else:
                self._held.popleft()

    def _tell(self) -> None:
        line = b'{"event":"log lines were lost","level":"warning","lines":%d}\n'
        self._held.append(line % (self.lost - self._told))
        self._size += len(self._held[-1])
        self._told = self.lost
        self._pass_on()

    def _is_open(self) -> bool:
        if self._poll is None:
            return True
        return any(events & select.POLLOUT for _, events in self._poll.poll(0))
