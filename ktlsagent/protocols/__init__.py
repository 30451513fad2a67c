"""
The protocols of the agent.

Below L{ktlsagent.protocols.handshake}, the Twisted protocol of an upcall, all
is pure: bytes and values in, bytes and values out.  The pure modules import
neither Twisted nor C{socket}, open no files and know no policy.
"""
