"""Functions of the operating system that Windows does not have."""

try:
    import fcntl
    import pwd
except ImportError as error:
    message = "modern_di_replicas.testing needs a POSIX system (Linux, macOS): Windows has no file locks by flock()."
    raise ImportError(message) from error


__all__ = ["fcntl", "pwd"]
