"""The server: it stores, orders and announces what nodes seal, and can read none of it.

Owns accounts' public halves, logs, the journal and sealed blocks. Refuses to know names, contents,
keys and trio. Stateless: any number of processes over one database and one block store. Started by
``server.main``.
"""
