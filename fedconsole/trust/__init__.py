"""The console's side of trust: its own key, the devices that it knows, how one becomes known.

The device's side is `pi_daemon.trust`, with what both share.
"""
