"""The key that this console shows to devices; made when it is first needed."""

from __future__ import annotations

from fedconsole import paths
from fedconsole.errors import RefusedError, StorageError
from fedconsole.trust.folders import locked
from pi_daemon.trust.keys import IdentityError, Keys, open_keys


def own_keys() -> Keys:
    """Imports cryptography: only for who speaks TLS.

    Raises:
        RefusedError: the key is damaged or open to others; the message says how to mend it.
        StorageError: it cannot be written.
    """
    folder = paths.identity_dir()
    try:
        # Two that begin at once must not make a key each.
        with locked(folder):
            return open_keys(folder)
    except IdentityError as error:
        raise RefusedError(f"this console's own key: {error}") from error
    except OSError as error:
        raise StorageError(f"this console's own key cannot be kept in {folder}: {error}") from error
