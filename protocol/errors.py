"""The errors of the protocol layer.

Every function in ``protocol`` either returns a valid value or raises one of these two. Which one
says whose fault it is, and so what the caller may do about it.
"""


class ProtocolError(Exception):
    """Something does not follow the protocol. Never raised itself: one of the two below is."""


class LocalProtocolError(ProtocolError):
    """We tried to build or send something that the protocol does not allow: a bug on our side.

    Nothing was sent. Unlike `RemoteProtocolError` it must not be answered by dropping the peer.
    """


class RemoteProtocolError(ProtocolError):
    """Bytes that came from elsewhere (server, peer, disk) are not what the protocol allows.

    The bytes are without effect. The message is fit for a log line and never holds secrets.
    """


class UnsupportedFormatError(RemoteProtocolError):
    """The bytes are of a format version that this release does not know.

    Unlike its parent it is nobody's mistake: a newer release wrote them. They are kept, stay
    without effect, and the user is told to upgrade.
    """
