"""Benchmarks: each measures jaxexec and a peer in one process, on the same work, with the error beside the time."""
