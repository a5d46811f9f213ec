"""The wire protocol: messages, their encodings, and the handshake and stages of a link.

Imports nothing from the cluster or requests packages.
"""
