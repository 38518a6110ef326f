"""Lets a run that is taken up go on from what its disk has not spoilt, and says so.

Before anybody reads the journal, as lines are taken back.
"""

from __future__ import annotations

from typing import Final

import msgspec

from fedconsole.coordinator import machine
from fedconsole.coordinator.events import Event
from fedconsole.coordinator.state import RunState
from fedconsole.engine.store import Row, RunStore
from fedconsole.errors import DamagedModelError, StorageError
from fedconsole.learning.contents import read_whole

_RESUME: Final = "and resume the run again"


def tell_lost_end(store: RunStore) -> None:
    """Say so where the disk has spoilt the end of the journal: what it told is done again.

    Raises:
        StorageError: the disk refuses.
    """
    if store.has_lost_end and store.last_seq:
        text = "the end of the journal is damaged on this disk: what it told is done again"
        store.commit(Row("warning", {"text": text}))


def go_back_to_whole_model(store: RunStore) -> RunState | None:
    """Take back the rounds after the newest model that is whole, so that they are trained again.

    They are opened as they were, with the same cohort and inputs. Where no model is whole all stays.

    Returns:
        Where the run stands; None: it has no event yet.

    Raises:
        StorageError: the disk refuses, or a model cannot be read that may be whole; all stays.
    """
    events = [msgspec.json.decode(event, type=Event) for event in store.events()]
    starts: dict[int, tuple[int, str]] = {}
    """Round -> how many events there were when it was started, and the model of the one before."""
    state = None
    for num_events, state in enumerate(machine.states(events) if events else (), start=1):
        if state.round is not None:
            starts.setdefault(state.round.number, (num_events, state.model_id))
    if state is None or state.phase.is_finished:
        return state
    last = state.num_rounds
    mend = f"or delete the file: round {last} is trained again then" if last else _RESUME
    damage = _find_damage(store, last, state.model_id, mend)
    if damage is None:
        return state
    for number in range(last, 0, -1):
        num_events, model_id = starts[number]
        if _find_damage(store, number - 1, model_id) is None:
            _forget_published(store)
            store.go_back(
                num_events, number, Row("warning", {"text": _words(damage, number, last)})
            )
            return machine.replay(events[:num_events])
    return state


def _find_damage(
    store: RunStore, round_number: int, model_id: str, mend: str = _RESUME
) -> DamagedModelError | None:
    """What is wrong with the model of a complete round, or with the initial one (0).

    Raises:
        StorageError: it cannot be read; `mend` says what to do when that is mended, or else.
    """
    try:
        read_whole(store.checkpoint_path(round_number), model_id)
    except DamagedModelError as damage:
        return damage
    except StorageError as error:
        raise StorageError(f"{error}; mend that, {mend}") from error
    return None


def _forget_published(store: RunStore) -> None:
    """What the run's user finds must not be newer than the run; it is published again with a round."""
    try:
        store.model_path.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(f"cannot remove {store.model_path}: {error}") from error


def _words(damage: DamagedModelError, first: int, last: int) -> str:
    again = f"round {last} is" if first == last else f"rounds {first} to {last} are"
    base = f"the model of round {first - 1}" if first > 1 else "the initial model"
    return f"the model of round {last} is damaged on this disk ({damage}); {again} trained again, from {base}"
