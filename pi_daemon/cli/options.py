"""The options of `pi-daemon`. None means "not given": the settings' file and the defaults decide."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from pi_daemon.protocol.limits import PORT

Config = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="TOML file with settings; options win.",
        show_default="/etc/pi-daemon/config.toml, else that of the user",
    ),
]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", "-p", min=0, max=65535, help="0 picks a free one.", show_default=str(PORT)
    ),
]
Host = Annotated[
    str | None,
    typer.Option(help="Address to listen on.", show_default="all, and before `init` 127.0.0.1"),
]
WorkerName = Annotated[
    str,
    typer.Option("--id", metavar="NAME", help="This worker's name.", show_default="host name"),
]
Dataset = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME=SOURCE",
        help="Data to train on: `sample`, a .npz or .safetensors file with x and y, a folder of "
        "IDX files, a heartbeat .csv, or a folder of WFDB records. Repeatable.",
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(help="Own only a part: 1/3, dirichlet:0.3:1/3:SEED, or record:NAME,NAME."),
]
Device = Annotated[
    Literal["cpu", "cuda"] | None, typer.Option(help="Where to train.", show_default="cpu")
]
StateDir = Annotated[
    str | None,
    typer.Option(help="Key and work files.", show_default="one for each name"),
]
MaxMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Of the trainer, such as 512M.", show_default="80 % of all"),
]
MaxModel = Annotated[
    str | None, typer.Option(metavar="SIZE", help="Largest model to accept, such as 100M.")
]
MaxBatchSeconds = Annotated[
    float | None,
    typer.Option(
        min=1, max=1e6, help="A batch that computes longer ends the trainer.", show_default="600"
    ),
]
AcceptData = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="Let consoles deal data into this folder; what is there is served, too.",
    ),
]
MaxBytes = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Of all that is dealt.", show_default="1G"),
]
ShareLabels = Annotated[
    bool, typer.Option("--share-labels", help="Tell consoles how many examples each class has.")
]
Pair = Annotated[
    bool,
    typer.Option("--pair", help="Let a console pair: as `init`, then serve, then `pair`."),
]
NoMdns = Annotated[bool, typer.Option("--no-mdns", help="Do not announce on mDNS.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")]
ShowVersion = Annotated[bool, typer.Option("--version", help="Print the version.")]
