"""The server's rules: who may do what, and what a commit must satisfy.

Owns the checks and the order in which stores are asked. Refuses to know HTTP and SQL. Called by the
routes of ``server.app``, over the ports of ``server.stores`` and ``server.blobs``.
"""
