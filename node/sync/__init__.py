"""The trio tasks that join disk and network: publishing, pulling and fetching blocks.

Owns order, batching, retries and cancellation of everything that travels. Refuses to know system
calls and HTTP. Started by ``node.main``, asked by ``node.drive`` for bytes that are not here.
"""
