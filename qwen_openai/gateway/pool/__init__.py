"""Many upstreams as one engine for each model: which one gets a job, and what happens when one
breaks."""

from qwen_openai.gateway.pool.pool import Pool

__all__ = ["Pool"]
