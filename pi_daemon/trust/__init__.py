"""Who may speak to whom: keys, join strings, the consoles that a device admits, TLS.

Both sides use it. Nothing here opens a socket.
"""
