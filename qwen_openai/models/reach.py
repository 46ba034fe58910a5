"""Can a host be reached at all? Answered within two seconds, because downloaders take a minute.

One TCP connection, through name resolution and the user's proxy settings, with no request sent.
Knows nothing of what the host offers.
"""

import queue
import socket
import threading
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

PATIENCE = 2.0  # seconds; the measure is the user's at a terminal, not a slow link's


def address_of(url: str) -> tuple[str, int]:
    """Return host and port that a client of ``url`` connects to: the proxy's, where one is set."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    proxy = None if proxy_bypass(host) else getproxies().get(parts.scheme)
    if proxy:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
        host = parts.hostname or ""
    return host, parts.port or (443 if parts.scheme == "https" else 80)


def reachable(url: str, patience: float = PATIENCE) -> bool:
    """Whether a TCP connection towards ``url`` opens within ``patience`` seconds.

    The attempt runs in a thread of its own because name resolution cannot be given a deadline.
    """
    try:
        host, port = address_of(url)
    except ValueError:
        return False
    answer: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def connect() -> None:
        try:
            with socket.create_connection((host, port), timeout=patience):
                answer.put(True)
        except (OSError, UnicodeError):
            answer.put(False)

    threading.Thread(target=connect, daemon=True).start()
    try:
        return answer.get(timeout=patience)
    except queue.Empty:
        return False
