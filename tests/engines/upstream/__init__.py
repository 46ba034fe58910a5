"""The engine that hands jobs on: its parts by themselves, and against servers on real sockets."""
