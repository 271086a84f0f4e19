"""One device of one account: the process that shows the namespaces as a folder and keeps them.

Owns the device's state directory, its keys and its side of every exchange. Refuses to know asyncio
and the server's insides; it meets the server through ``protocol`` alone. Started by ``node.main``,
driven by the kernel through ``fusefs`` and by people through ``node.cli``.
"""
