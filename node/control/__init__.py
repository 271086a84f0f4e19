"""The control socket: commands and events between a running node and its user's tools.

Owns the local socket, the check of who is calling, and the messages on it. Refuses to know how a
command is carried out or printed. Served by ``node.main``; spoken to by ``node.cli``.
"""
