"""One line of a form."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.widgets import Input, Select, Static

from fedconsole.tui.glyphs import glyph
from fedconsole.tui.lang import _
from fedconsole.tui.run_form import Field
from pi_daemon.protocol.text import clean


class FormField(Vertical):
    """A label, what is typed, and below it what is wrong with it."""

    DEFAULT_CSS = """
    FormField { height: auto; }
    FormField > Horizontal { height: 1; }
    FormField Static.label { width: 18; height: 1; padding: 0 1 0 0; }
    FormField Input { width: 1fr; height: 1; border: none; padding: 0 1; background: $panel; }
    FormField Input:focus { background: $primary 30%; }
    FormField Select { width: 1fr; height: 1; }
    FormField Static.error { height: auto; display: none; color: $error; padding: 0 1; }
    """

    def __init__(self, spec: Field) -> None:
        super().__init__()
        self.spec = spec

    def compose(self) -> ComposeResult:
        with Horizontal():
            yield Static(classes="label", markup=False)
            if self.spec.choices:
                yield Select(
                    [(choice, choice) for choice in self.spec.choices],
                    prompt=self.spec.hint,
                    compact=True,
                    id=self.spec.name,
                )
            else:
                yield Input(compact=True, id=self.spec.name)
        yield Static(classes="error", markup=False)

    def on_mount(self) -> None:
        self.retell()

    def retell(self) -> None:
        """In the language in use."""
        self.query_one(".label", Static).update(_(self.spec.label))
        for field in self.query(Input):
            field.placeholder = _(self.spec.hint)

    @property
    def text(self) -> str:
        field = self.query_one(f"#{self.spec.name}")
        if isinstance(field, Select):
            return "" if field.is_blank() else str(field.value)
        assert isinstance(field, Input)
        return field.value

    def set_text(self, text: str) -> None:
        field = self.query_one(f"#{self.spec.name}")
        if isinstance(field, Select):
            if text:
                field.value = text
            else:
                field.clear()
        elif isinstance(field, Input):
            field.value = text

    def show_problem(self, problem: str | None) -> None:
        error = self.query_one(".error", Static)
        if error.display or problem:
            error.update(f"{glyph('failed')} {clean(problem)}" if problem else "")
            error.display = problem is not None
