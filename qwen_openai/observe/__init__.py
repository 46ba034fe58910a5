"""Logs. Receives facts, changes nothing."""
