"""What is fuzzed: every parser of bytes that somebody else may have written.

A target takes bytes and does with them what the program would do. It raises only when something is
wrong: the errors that the parser's documentation names are part of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

CORPUS: Final = Path(__file__).parent / "corpus"
MAX_INPUT_BYTES: Final = 64 << 10
"""Long enough for every branch, short enough for thousands of tries a second."""


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    run: Callable[[bytes], object]
    allows: type[Exception] | tuple[type[Exception], ...] = ()
    """What the parser may raise: what its documentation names."""
    bytes_per_byte: int = 64
    """Memory that an input may take for each of its bytes; `BASE_BYTES` come on top."""

    def __call__(self, content: bytes) -> None:
        """Raises whatever is a finding."""
        try:
            self.run(content)
        except self.allows as error:
            # An honest parser does not need so much memory that it has to say so.
            if isinstance(error.__cause__, MemoryError):
                raise error.__cause__ from None

    def limit_bytes(self, num_bytes: int) -> int:
        """The most memory that an input of this size may take."""
        return BASE_BYTES + self.bytes_per_byte * num_bytes

    def seeds(self) -> list[bytes]:
        """What is in the repository for it."""
        return [path.read_bytes() for path in sorted((CORPUS / self.name).iterdir())]


BASE_BYTES: Final = 8 << 20


def codec(folder: Path) -> Target:
    """Frames of a link, text and binary, in both directions."""
    from pi_daemon.protocol.codec import (
        IncomingTransfers,
        Unknown,
        close_reason,
        decode_from_console,
        decode_from_daemon,
        encode,
    )
    from pi_daemon.protocol.errors import ProtocolError
    from pi_daemon.protocol.pairing import decode_pair, decode_paired
    from pi_daemon.protocol.values import Blob

    def run(content: bytes) -> None:
        for decode in (decode_from_console, decode_from_daemon):
            try:
                message: Any = decode(content)
            except ProtocolError as error:
                close_reason(str(error))
                continue
            if not isinstance(message, Unknown):
                assert decode(encode(message)) == message, "the message changes on its way"
        for read in (decode_pair, decode_paired):
            with suppress(ProtocolError):
                read(content.decode(errors="replace"))
        transfers = IncomingTransfers()
        number = int.from_bytes(content[:4], "big")
        blob = Blob(number, len(content), "0" * 64)
        incoming = transfers.announce(blob, limit_bytes=1 << 30)
        for part in (content, content[:20], content[4:]):
            with suppress(ProtocolError):
                transfers.feed(part)
        assert incoming.received <= blob.size

    return Target("codec", run)


def tensors(folder: Path) -> Target:
    """The header of a model or an update; what it accepts, the safetensors library must read alike."""
    import safetensors

    from pi_daemon.protocol.errors import TensorError
    from pi_daemon.protocol.tensors import model_id, read_table, require_specs

    def run(content: bytes) -> None:
        table = read_table(content)
        model_id(content, table)
        require_specs(table.specs, table.specs)
        assert all(0 <= begin <= end <= len(content) for begin, end in table.offsets.values())
        with suppress(safetensors.SafetensorError):
            found = {name: entry["shape"] for name, entry in safetensors.deserialize(content)}
            assert found == {name: list(spec.shape) for name, spec in table.specs.items()}

    return Target("tensors", run, TensorError)


def graphs(folder: Path) -> Target:
    """Graphs from a console, up to where they would run."""
    from pi_daemon.learning.graph import CompiledGraph
    from pi_daemon.protocol.graphs import GraphError, decode_graphs, encode_graphs

    def run(content: bytes) -> None:
        found = decode_graphs(content)
        assert decode_graphs(encode_graphs(found)) == found, "the graphs change on their way"
        assert len(found.returned) <= len(found.parameters) + len(found.buffers)
        for graph in (found.training, found.evaluation):
            CompiledGraph(graph, "meta")

    return Target("graphs", run, GraphError)


def pipe(folder: Path) -> Target:
    """What a trainer says, which may have run a hostile graph."""
    import msgspec

    from pi_daemon.trainer.pipe import decode_from_trainer, frame

    def run(content: bytes) -> None:
        message = decode_from_trainer(content)
        assert decode_from_trainer(frame(message)[4:]) is not None

    return Target("pipe", run, msgspec.DecodeError)


def config(folder: Path) -> Target:
    """The console's TOML."""
    from fedconsole.config import load
    from fedconsole.errors import FedconsoleError

    path = folder / "config.toml"

    def run(content: bytes) -> None:
        path.write_bytes(content)
        load({}, path).settings()

    return Target("config", run, FedconsoleError)


def daemon_config(folder: Path) -> Target:
    """The TOML of a device's owner."""
    from pi_daemon.config import ConfigError, parse

    def run(content: bytes) -> None:
        with suppress(UnicodeDecodeError):
            parse(content.decode(), "config.toml")

    return Target("daemon_config", run, ConfigError)


def join(folder: Path) -> Target:
    """A join string, as somebody has pasted it."""
    from pi_daemon.trust.join import JoinError, parse_join

    def run(content: bytes) -> None:
        found = parse_join(content.decode(errors="replace"))
        assert parse_join(str(found)) == found, "the join string changes on its way"
        assert found.address
        assert "secret" not in repr(found)

    return Target("join", run, JoinError)


def values(folder: Path) -> Target:
    """What is typed for an option, in a form or in the environment; and addresses."""
    from fedconsole.config import KEYS, read_value
    from fedconsole.errors import UsageError
    from fedconsole.fleet.device import parse_address

    keys = sorted(KEYS)

    def run(content: bytes) -> None:
        text = content[1:].decode(errors="replace")
        with suppress(UsageError):
            parse_address(text)
        if content:
            read_value(keys[content[0] % len(keys)], text)

    return Target("values", run, UsageError)


def state(folder: Path) -> Target:
    """Small JSON files that outlive their program: fence, registry, audit log, consoles, devices."""
    from fedconsole import paths
    from fedconsole.errors import FedconsoleError
    from fedconsole.trust import known_devices
    from pi_daemon.audit.log import NAME, read_log, sums_of
    from pi_daemon.discovery import registered_daemons, registry_dir
    from pi_daemon.identity import Identity, IdentityError
    from pi_daemon.paths import make_private
    from pi_daemon.trust.keys import open_keys

    identity = Identity(folder / "device", open_keys(make_private(folder / "device")))

    def run(content: bytes) -> None:
        (folder / "device" / "fence.json").write_bytes(content)
        with suppress(IdentityError):
            identity.load_fence()
        (registry_dir() / "x.json").write_bytes(content)
        registered_daemons()
        (folder / NAME).write_bytes(content)
        sums_of(read_log(folder))
        (make_private(paths.known_devices_dir()) / "x.json").write_bytes(content)
        with suppress(FedconsoleError):
            known_devices.load()

    return Target("state", run)


def texts(folder: Path) -> Target:
    """A peer's words on their way to a terminal."""
    import unicodedata

    from pi_daemon.protocol.text import clean

    def run(content: bytes) -> None:
        shown = clean(content.decode(errors="surrogatepass"), 40)
        assert len(shown) <= 40
        assert shown.encode() or not shown
        kinds = {unicodedata.category(char) for char in shown if char != "\u200d"}
        assert not kinds & {"Cc", "Cf", "Cs", "Co", "Cn"}

    return Target("texts", run, UnicodeDecodeError)


def _dataset(folder: Path, name: str, suffix: str, **options: int) -> Target:
    import msgspec

    from pi_daemon.learning.datasets import DatasetError, card, cut, load
    from pi_daemon.protocol.messages import DatasetCard

    path = folder / f"data.{suffix}"

    def run(content: bytes) -> None:
        path.write_bytes(content)
        arrays = load(str(path))
        with suppress(DatasetError):
            cut(arrays, "1/2")
        told = msgspec.json.encode(card("data", arrays, share_labels=True))
        msgspec.json.decode(told, type=DatasetCard)

    return Target(name, run, DatasetError, **options)


def safetensors_data(folder: Path) -> Target:
    """A dataset that a console deals, up to its card."""
    return _dataset(folder, "safetensors_data", "safetensors")


def npz(folder: Path) -> Target:
    """A dataset as NumPy saves it."""
    return _dataset(folder, "npz", "npz", bytes_per_byte=2_200)


def heartbeats(folder: Path) -> Target:
    """The heartbeat CSV."""
    return _dataset(folder, "heartbeats", "csv", bytes_per_byte=200)


def idx(folder: Path) -> Target:
    """IDX files, gzipped and not."""
    from pi_daemon.learning.idx import IdxError, read_idx

    def run(content: bytes) -> None:
        for name in ("data", "data.gz"):
            (folder / name).write_bytes(content)
            with suppress(IdxError):
                read_idx(folder / name)

    return Target("idx", run, bytes_per_byte=2_200)


def wfdb_annotations(folder: Path) -> Target:
    """WFDB's annotation files."""
    from pi_daemon.ecg.annotations import AnnotationError, read_annotations

    path = folder / "100.atr"

    def run(content: bytes) -> None:
        path.write_bytes(content)
        found = read_annotations(path)
        assert len(found.samples) == len(found.labels)

    return Target("wfdb_annotations", run, AnnotationError)


def wfdb_header(folder: Path) -> Target:
    """The header of a recording, beside a signal of 4,000 samples and two annotations."""
    import numpy as np

    from pi_daemon.ecg.records import RecordError, read_beats, record_names

    (folder / "100.hea").touch()
    record_names(folder)  # that the extra is here
    wave = (200 * np.sin(np.arange(4_000) / 9)).astype("<i2")
    (folder / "100.dat").write_bytes(wave.tobytes())
    (folder / "100.atr").write_bytes(bytes.fromhex("64048405c8040000"))

    def run(content: bytes) -> None:
        (folder / "100.hea").write_bytes(content)
        read_beats(folder, "100")

    # 32 MiB beside it: wfdb reads headers with pandas' help, and the whole signal is resampled.
    return Target("wfdb_header", run, RecordError, bytes_per_byte=1_000)


_MAKERS: Final = (
    *(codec, tensors, graphs, pipe, config, daemon_config, join, values, state, texts),
    *(safetensors_data, npz, heartbeats, idx, wfdb_annotations, wfdb_header),
)
TARGETS: Final[Mapping[str, Callable[[Path], Target]]] = {make.__name__: make for make in _MAKERS}
"""By name; each is given an empty folder. It imports its parser when it is made: not each needs torch."""
