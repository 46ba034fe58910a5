"""What stands in front of the engines: keys, limits, the queue, usage, many upstreams as one."""
