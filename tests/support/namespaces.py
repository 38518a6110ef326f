"""A network of its own behind a router that loses packets and is slow: namespaces, nftables and tc."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.support.tools import require_program, require_root

ADDRESS = "10.213.7.6"
"""Of the host behind the router."""


@dataclass(frozen=True)
class LossyNetwork:
    """The way from this machine to a host in a namespace."""

    router: str
    host: str

    @property
    def enter(self) -> tuple[str, ...]:
        """What to put before a command that is to run on the host."""
        return ("ip", "netns", "exec", self.host)

    def spoil(self, loss_percent: int, rate: str) -> None:
        """From now on so many packets are lost, and no more passes than `rate`, in either direction."""
        for command in (
            "table ip loss",
            "chain ip loss forward { type filter hook forward priority 0; }",
            f"rule ip loss forward numgen random mod 100 < {loss_percent} counter drop",
        ):
            _run(*self._in_router, "nft", f"add {command}")
        for interface in ("near", "far"):
            limit = ("tbf", "rate", rate, "burst", "16kb", "latency", "400ms")
            _run(*self._in_router, "tc", "qdisc", "add", "dev", interface, "root", *limit)

    @property
    def num_lost(self) -> int:
        """Packets that were dropped so far."""
        listed = json.loads(_run(*self._in_router, "nft", "-j", "list", "table", "ip", "loss"))
        return sum(
            expression["counter"]["packets"]
            for entry in listed["nftables"]
            for expression in entry.get("rule", {}).get("expr", ())
            if "counter" in expression
        )

    @property
    def _in_router(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.router)


@contextmanager
def lossy_network() -> Iterator[LossyNetwork]:
    """A host in a namespace, reached by `ADDRESS` over a router in another; without root it is skipped."""
    require_root("network namespaces")
    for program, package in (("ip", "iproute2"), ("tc", "iproute2"), ("nft", "nftables")):
        require_program(program, package)
    network = LossyNetwork(f"fc-router-{os.getpid()}", f"fc-host-{os.getpid()}")
    link = f"fc{os.getpid()}"
    try:
        try:
            for command in _commands(network, link):
                _run("ip", *command.split())
            _run(*network._in_router, "sysctl", "-q", "-w", "net.ipv4.ip_forward=1")
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs network namespaces: {error.stderr.decode().strip()}")
        yield network
    finally:
        # Links go with their namespaces, and the route with its link.
        for namespace in (network.host, network.router):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)


@dataclass(frozen=True)
class MovingHost:
    """A host in a namespace with one network, in which it may get another address."""

    name: str

    @property
    def enter(self) -> tuple[str, ...]:
        return ("ip", "netns", "exec", self.name)

    def move(self, old: str, new: str) -> None:
        """As at the end of a router's lease."""
        _run("ip", "-n", self.name, "addr", "del", f"{old}/24", "dev", "eth0")
        _run("ip", "-n", self.name, "addr", "add", f"{new}/24", "dev", "eth0")


@contextmanager
def moving_host(address: str) -> Iterator[MovingHost]:
    """Has this address at first; without root it is skipped."""
    require_root("network namespaces")
    require_program("ip", "iproute2")
    host = MovingHost(f"fc-moving-{os.getpid()}")
    try:
        try:
            _run("ip", "netns", "add", host.name)
            for command in (
                "link set lo up",
                "link add eth0 type veth peer name other",
                "link set eth0 up",
                "link set other up",
                f"addr add {address}/24 dev eth0",
            ):
                _run("ip", "-n", host.name, *command.split())
        except subprocess.CalledProcessError as error:
            pytest.skip(f"needs network namespaces: {error.stderr.decode().strip()}")
        yield host
    finally:
        subprocess.run(["ip", "netns", "delete", host.name], check=False, capture_output=True)


def _commands(network: LossyNetwork, link: str) -> list[str]:
    router, host = network.router, network.host
    return [
        f"netns add {router}",
        f"netns add {host}",
        f"link add {link} type veth peer name near netns {router}",
        f"-n {router} link add far type veth peer name eth0 netns {host}",
        f"addr add 10.213.7.1/30 dev {link}",
        f"-n {router} addr add 10.213.7.2/30 dev near",
        f"-n {router} addr add 10.213.7.5/30 dev far",
        f"-n {host} addr add {ADDRESS}/30 dev eth0",
        f"link set {link} up",
        f"-n {router} link set near up",
        f"-n {router} link set far up",
        f"-n {host} link set eth0 up",
        f"-n {host} link set lo up",
        "route add 10.213.7.4/30 via 10.213.7.2",
        f"-n {host} route add default via 10.213.7.5",
    ]


def _run(*command: str) -> bytes:
    return subprocess.run(command, check=True, capture_output=True).stdout
