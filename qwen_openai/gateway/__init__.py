"""What stands in front of the engines: admission and its one queue."""
