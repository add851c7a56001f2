"""`python -m modern_di_replicas watch`: the topology, live in the terminal."""
