"""The metadata port and its implementations.

Owns schemas, migrations and transactions. Refuses to judge: a rule that is not a constraint of the
database belongs to ``server.services``, its only caller.
"""
