"""HTTP: which request asks which service, and how answers and refusals travel.

Owns paths, bodies, encodings, limits of requests and the tokens in headers. Refuses to decide
anything about accounts, records or blocks. Called by ``server.app``.
"""
