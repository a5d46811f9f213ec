"""The core of mpreg: it makes all decisions and does no I/O (Sans-IO)."""
