"""Servers to stand in front of: a mock that misbehaves on demand, a proxy that breaks connections,
and the starting and killing of both.
"""
