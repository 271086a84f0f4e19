"""The ``atoll`` command: what people and scripts type.

Owns arguments, prompts, exit codes and the words that are printed. Refuses to decide anything about
namespaces: it asks a running node over the control socket, or the server through the node's client.
"""
