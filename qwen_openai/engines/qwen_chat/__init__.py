"""Qwen in this process, with torch and transformers: QwenChat, and the engine that serves it."""
