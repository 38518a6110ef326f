from __future__ import annotations

import pytest
from zeroconf import NotRunningException

from fedconsole.fleet import mdns


async def test_a_search_that_cannot_begin_in_time_is_a_machine_without_multicast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Late:
        async def __aenter__(self) -> None:
            raise NotRunningException

        async def __aexit__(self, *_: object) -> None: ...

    monkeypatch.setattr(mdns, "AsyncZeroconf", Late)
    with pytest.raises(OSError, match="NotRunningException"):
        await mdns.browse(0)
