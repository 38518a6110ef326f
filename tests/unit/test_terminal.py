from __future__ import annotations

import os
import pty

import pytest

from fedconsole.tui.terminal import Terminal


def test_what_is_written_after_the_terminal_is_gone_goes_nowhere() -> None:
    master, slave = pty.openpty()
    with open(slave, "w", closefd=False) as file, open(os.devnull, "w") as elsewhere:  # noqa: PTH123
        terminal = Terminal(file)
        terminal.write("here\n")
        terminal.flush()
        assert os.read(master, 100) == b"here\r\n"
        os.close(master)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(slave, b"gone")
        for _ in range(3):
            assert terminal.write("x" * 100_000) == 100_000
            terminal.flush()
        os.dup2(elsewhere.fileno(), slave)  # what is left in the file's buffer may go there
    os.close(slave)
