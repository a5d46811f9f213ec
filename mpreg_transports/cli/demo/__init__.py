"""`mpreg demo`: its nodes, its requests, and what it prints."""
