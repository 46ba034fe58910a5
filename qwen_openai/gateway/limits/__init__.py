"""What keys may take, and the whole server: requests and tokens a minute, at once, a day, a month.

A request reserves what it may cost at most before it runs, and settles on what it did cost, however
it ended. Single event loop, nothing here waits: a decision is never split by another request.
"""

from qwen_openai.gateway.limits.limiter import Limiter, Reservation

__all__ = ["Limiter", "Reservation"]
