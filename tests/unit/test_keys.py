"""Keys and their Hangul twins, in every class of the console that has bindings."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import unicodedata

import pytest
from textual.binding import Binding
from textual.keys import _character_to_key

from fedconsole import tui
from fedconsole.tui.app import FedconsoleApp
from fedconsole.tui.keys import JAMO, key


def classes_with_bindings() -> list[type]:
    """All classes of the console that bring bindings of their own, app, screens, dialogs, widgets."""
    modules = [
        importlib.import_module(found.name)
        for found in pkgutil.walk_packages(tui.__path__, f"{tui.__name__}.")
    ]
    found = {
        one
        for module in modules
        for one in vars(module).values()
        if inspect.isclass(one) and one.__module__.startswith(tui.__name__)
    }
    own = (one for one in found if vars(one).get("BINDINGS"))
    return sorted(own, key=lambda one: one.__qualname__)


CLASSES = classes_with_bindings()


def bindings_of(one: type) -> list[Binding]:
    return list(vars(one)["BINDINGS"])


# The table


def test_every_letter_has_its_twin_on_the_keyboard() -> None:
    assert set("abcdefghijklmnopqrstuvwxyz") < JAMO.keys()
    assert len(set(JAMO.values())) == len(JAMO)
    for letter, jamo in JAMO.items():
        # Consonants are typed with the left hand, vowels with the right one.
        is_vowel = "\N{HANGUL LETTER A}" <= jamo <= "\N{HANGUL LETTER I}"
        assert (letter, is_vowel) == (letter, letter.lower() in "yuiophjklbnm")


@pytest.mark.parametrize("capital", "QWERTOP")
def test_the_twin_of_a_capital_is_the_doubled_letter(capital: str) -> None:
    plain = unicodedata.name(JAMO[capital.lower()]).removeprefix("HANGUL LETTER ")
    doubled = f"Y{plain}" if plain in ("AE", "E") else f"SSANG{plain}"
    assert unicodedata.name(JAMO[capital]) == f"HANGUL LETTER {doubled}"


def test_other_capitals_have_none() -> None:
    assert {letter for letter in JAMO if letter.isupper()} == set("QWERTOP")


# Making a binding


def test_a_binding_has_the_twins_of_its_letters() -> None:
    assert key("p", "pause", "Pause", cli="fedconsole pause RUN") == Binding(
        "p,ㅔ", "pause", "Pause", key_display="p", tooltip="fedconsole pause RUN"
    )
    assert key("l,L,R", "clone", "Clone").key == "l,ㅣ,L,R,ㄲ"


def test_a_binding_is_shown_by_its_first_key() -> None:
    made = key("?,f1", "help", "Help", show=False, priority=True)
    assert made == Binding(
        "question_mark,f1", "help", "Help", show=False, key_display="?", tooltip="", priority=True
    )
    shown = {"escape": "Esc", "ctrl+p": "^P", "left": "←", "delete": "Del", "N": "N", "1": "1"}
    assert {name: key(name, "x", "X").key_display for name in shown} == shown


@pytest.mark.parametrize("sign", "/?:!*+-<>")
def test_a_sign_has_the_name_that_textual_gives_it(sign: str) -> None:
    assert key(sign, "x", "X").key == _character_to_key(sign)


@pytest.mark.parametrize("jamo", JAMO.values())
def test_a_jamo_is_its_own_name(jamo: str) -> None:
    assert _character_to_key(jamo) == jamo


# The console's bindings


def test_the_app_its_screens_dialogs_and_widgets_were_found() -> None:
    names = {one.__name__ for one in CLASSES}
    expected = {
        "FedconsoleApp",
        "FleetScreen",
        "NewRunScreen",
        "LiveScreen",
        "HistoryScreen",
        "RunPage",
        "CompareScreen",
        "HelpDialog",
        "Choice",
        "LineLog",
        "LineTable",
        "Timeline",
    }
    assert names >= expected


@pytest.mark.parametrize("one", CLASSES)
def test_every_letter_that_is_bound_has_its_twin(one: type) -> None:
    for binding in bindings_of(one):
        names = binding.key.split(",")
        twins = [JAMO[name] for name in names if name in JAMO]
        assert (binding.key, set(twins) - set(names)) == (binding.key, set())


@pytest.mark.parametrize("one", CLASSES)
def test_every_key_has_a_name_that_textual_knows(one: type) -> None:
    for binding in bindings_of(one):
        signs = [name for name in binding.key.split(",") if len(name) == 1]
        assert [_character_to_key(sign) for sign in signs] == signs
        assert binding.key_display


@pytest.mark.parametrize("one", CLASSES)
def test_every_action_that_is_bound_is_there(one: type) -> None:
    heirs = [other for other in CLASSES if issubclass(other, one)]
    for binding in bindings_of(one):
        namespace, _, call = binding.action.rpartition(".")
        name = f"action_{call.partition('(')[0]}"
        places: list[type] = [FedconsoleApp] if namespace == "app" else heirs
        assert all(callable(getattr(place, name, None)) for place in places), binding
