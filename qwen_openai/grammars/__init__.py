"""What an answer must match: rules as text, whether they are fit to run, whether they were kept."""
