"""The command `mpreg demo`: its nodes, its requests, and its output."""
