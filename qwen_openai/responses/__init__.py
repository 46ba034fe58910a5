"""Events to wire bodies: the sole owner of ids, `created`, role, finish and usage chunks."""
