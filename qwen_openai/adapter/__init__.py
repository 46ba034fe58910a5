"""Wire request to Job: roles, merging, defaults, checks. Pure: no tokenizer, no I/O, no HTTP."""
