"""The process that answers the network, so that no byte of a stranger's is parsed by the daemon.

It ends TLS, bounds what clients may do, checks tokens, and hands requests to the daemon over its
unix socket. It has no capabilities. Few imports: neither pydantic nor FastAPI is in its memory.
"""
