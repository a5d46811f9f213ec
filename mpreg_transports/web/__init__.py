"""HTTP on the same port: health, status, and `POST /rpc`."""
