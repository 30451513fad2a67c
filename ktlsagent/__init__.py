"""The user-space agent for the Linux kernel's TLS handshake upcall."""

__version__ = "0.1.0"
