"""The engine that hands jobs on to another server that speaks OpenAI's API."""
