"""The node's disk: state directory, keys, encrypted index, staging and block cache.

Owns files, transactions and their durability. Decides nothing: what to keep, publish or evict is
said by its callers, ``node.sync`` and ``node.drive``.
"""
