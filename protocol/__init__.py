"""What crosses between devices and the server: formats, rules and keys, as pure functions.

Owns every byte that is written, sealed, signed or sent, the bounds on it, and the laws by which two
states of a namespace merge. Refuses to know disks, sockets, clocks, randomness sources, logging and
event loops: whoever calls brings the time and the bytes. Called by ``node`` (on trio) and ``server``
(on asyncio), which share nothing else.
"""
