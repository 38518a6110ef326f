"""A model of power cuts for a run's folder: what is written is recorded, and images are made of it.

`Recording` keeps each write, truncation, sync, new name and lost name in one order: SQLite's through a
VFS of apsw, all others by replacing functions of `os` and `io` meanwhile. An image is what a disk may
hold when the power fails at one moment: all that was synced, and of the rest a seeded random part.
Content that was not synced may be missing, short or garbled; each name that came, went or moved since
its folder was synced may have done so or not.

apsw brings an SQLite of its own, newer than Python's; both write and sync the same (seen with strace: the
folder, too, at the first sync of a new `-journal` or `-wal`). Not modelled: writes of other processes,
modes and times of files, renames from one folder to another.
"""
