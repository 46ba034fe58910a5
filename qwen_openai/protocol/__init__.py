"""The wire models: what clients send, validated strictly. No logic, no engines."""
