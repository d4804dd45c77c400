"""The address that the server listens on, and the host names that requests may give."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import logging
import socket
from collections.abc import Iterator, Sequence

from workflows.ground.errors import AddressError

log = logging.getLogger(__name__)

#: Environment variable of the API key. As an argument, all users of the machine could see it.
KEY = "TWO_TOWER_API_KEY"
_WHAT_TO_DO = {
    errno.EADDRINUSE: "Another process listens there. Stop it, or choose another --port.",
    errno.EACCES: "Ports below 1024 are for the administrator. Choose another --port.",
    errno.EADDRNOTAVAIL: "This machine has no such address. Give --host one of its addresses.",
}


@contextlib.contextmanager
def explain_address_errors(host: str, port: int) -> Iterator[None]:
    """Return a context that turns the system's errors about a server address into one paragraph.

    Raises:
        AddressError: the server cannot listen on the address.
    """
    try:
        yield
    except OSError as error:
        what_to_do = _WHAT_TO_DO.get(error.errno or 0, "Check --host and --port.")
        raise AddressError(
            f"The server cannot listen on {host_in_url(host)}:{port}: {error.strerror or error}. "
            f"{what_to_do}"
        ) from None


def bind(host: str, port: int) -> list[socket.socket]:
    """Return a bound socket, which does not listen yet, for each network address of a host.

    Args:
        host: name or address; "" for all addresses of this machine.
        port: port; 0 for any free port.

    Raises:
        AddressError: the server cannot listen on the address.
    """
    with contextlib.ExitStack() as undo, explain_address_errors(host, port):
        found = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        sockets = []
        # with port 0, only the first: each address would get another port
        for family, kind, protocol, _, address in dict.fromkeys(found[: None if port else 1]):
            one = undo.enter_context(socket.socket(family, kind, protocol))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind(address)
            sockets.append(one)
        undo.pop_all()
    return sockets


def is_loopback(host: str) -> bool:
    """Return whether only processes of this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def warn_if_exposed(host: str, key: str) -> None:
    """Warn if other machines can reach the server and it does not require a key.

    Args:
        host: the host that the server listens on.
        key: the key that requests must name; "" if no key is needed.
    """
    if not key and not is_loopback(host):
        log.warning(
            "Other machines can reach a server on %s, and %s is not set: anyone who reaches it can "
            "read the histories of all users. Set the key, or listen on 127.0.0.1.",
            host_in_url(host) or "all addresses",
            KEY,
        )


def allowed_hosts(host: str, more: Sequence[str]) -> frozenset[str]:
    """Return the host names that requests may give in `Host`; empty if all are allowed.

    A foreign web page can point its own name at 127.0.0.1, so that the visitor's browser lets the
    page read what this server sends (DNS rebinding). The name in the header `Host` reveals requests
    of foreign pages.

    Args:
        host: the host that the server listens on.
        more: further names of the server; "*" allows all names.
    """
    if "*" in more:
        return frozenset()
    names = {name.strip().lower() for name in more if name.strip()}
    if is_loopback(host):
        names |= {"localhost", "127.0.0.1", "[::1]", host_in_url(host).lower()}
    return frozenset(names)


def host_in_url(host: str) -> str:
    """Return a host name or address as it is written in a URL: an IPv6 address gets brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
