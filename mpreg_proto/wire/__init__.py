"""Bytes to messages and back; a link's handshake and life. Imports nothing of the cluster or of requests."""
