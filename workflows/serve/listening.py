"""The address on which the server listens, and the host names that it answers to."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Iterator, Sequence

from workflows.ground.errors import AddressError

log = logging.getLogger(__name__)

#: Where the key is told; an argument would be seen by everybody on the machine.
KEY = "TWO_TOWER_API_KEY"
_WHAT_TO_DO = {
    errno.EADDRINUSE: "Another process listens there. Stop it, or take another --port.",
    errno.EACCES: "Ports below 1024 are for the administrator. Take another --port.",
    errno.EADDRNOTAVAIL: "This machine has no such address. Give --host one that it has.",
}


@contextlib.contextmanager
def explained(host: str, port: int) -> Iterator[None]:
    """Say in a paragraph why an address cannot be listened on.

    Raises:
        AddressError: it cannot.
    """
    try:
        yield
    except OSError as error:
        what = _WHAT_TO_DO.get(error.errno or 0, "Look at --host and --port.")
        raise AddressError(
            f"The server cannot listen on {shown(host)}:{port}: {error.strerror or error}. {what}"
        ) from None


def bound(host: str, port: int) -> list[socket.socket]:
    """Return a socket for each address of a host, bound, but not listening yet.

    Args:
        host: name or address; "" for all of this machine's.
        port: 0 for any that is free.

    Raises:
        AddressError: an address cannot be had.
    """
    with contextlib.ExitStack() as undo, explained(host, port):
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sockets = []
        # with port 0 each address would get another port
        for family, kind, protocol, _, address in dict.fromkeys(found[: None if port else 1]):
            one = undo.enter_context(socket.socket(family, kind, protocol))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            sockets.append(one)
        undo.pop_all()
    return sockets


def is_local(host: str) -> bool:
    """Say whether a host hears this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def warn_if_open(host: str, key: str) -> None:
    """Warn of a server that other machines can reach and that asks for no key.

    Args:
        host: the host that it listens on.
        key: the key that askers must name; "" for none.
    """
    if not key and not is_local(host):
        log.warning(
            "Other machines can reach a server on %s, and %s is not set: whoever reaches it may "
            "read what every user did. Set the key, or listen on 127.0.0.1.",
            shown(host) or "all addresses",
            KEY,
        )


def names_of(host: str, more: Sequence[str]) -> frozenset[str]:
    """Return the names that requests may say in `Host`; none of them for any.

    A page on the internet can point a name of its own at 127.0.0.1 and let a browser read what is
    served there (DNS rebinding); the name in `Host` gives it away.

    Args:
        host: the host that the server listens on.
        more: names that it has besides; "*" for any.
    """
    if "*" in more:
        return frozenset()
    told = {name.strip().lower() for name in more if name.strip()}
    if is_local(host):
        told |= {"localhost", "127.0.0.1", "[::1]", shown(host).lower()}
    return frozenset(told)


def shown(host: str) -> str:
    """Return a host as it stands in an address."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
