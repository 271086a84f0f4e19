"""The block port and its implementations.

Owns sealed blocks at rest: each is verified against its id while it streams in and is never held
whole in memory. Refuses to know accounts and leases; called by ``server.services``.
"""
