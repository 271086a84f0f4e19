"""The node's sockets: the client of the server's API, and later the links to peers.

Owns connections, deadlines, pins and the translation of their failures. Decides nothing and never
retries; ``node.sync`` does both.
"""
