"""Tests of whole processes: a server, nodes, mounts, and the command line between them."""
