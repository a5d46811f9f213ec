"""The secret of a cluster, and what is derived from it: the certificate authority, certificates, and TLS contexts.

`Server` and `Client` make `Credentials` (contexts.py) from a secret. Links, listener and dialling use its TLS contexts;
the core gets only the verdict for each link. Nothing here opens a connection, and nothing here logs.
"""
