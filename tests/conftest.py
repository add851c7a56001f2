pytest_plugins = ["modern_di_replicas.testing.fixtures"]
