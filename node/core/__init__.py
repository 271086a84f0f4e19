"""The node's decisions, as pure functions over values.

Owns what is shown, chosen, cut and kept: the tree view, conflicts, chunk borders, waiting times.
Refuses to know disks, sockets and tasks. Called by ``node.storage``, ``node.sync`` and
``node.drive``, which carry the decisions out.
"""
