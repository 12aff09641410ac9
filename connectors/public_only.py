"""The way out to addresses that came in a payload: public ones only, looked up once, for so long.

requests and urllib3 look a name up when they connect, so the check must sit there: between a
check of ours and a second look-up the name could have moved inside (DNS rebinding).
https://docs.python.org/3/library/ipaddress.html#ipaddress.IPv4Address.is_global
"""

import ipaddress
import socket
import threading
from typing import Any

from requests import Session
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import NameResolutionError
from urllib3.util.connection import create_connection

from chalicelib.errors import RejectedError

_V6 = ipaddress.IPv6Address
#: In these an IPv4 address is written as an IPv6 one (NAT64, 6to4, Teredo, IPv4-compatible).
_TRANSLATED = [
    ipaddress.IPv6Network(net)
    for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::/96")
]
_NEVER = [
    ipaddress.ip_network(net)
    for net in ("100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "fec0::/10")
]


def is_public(address: str) -> bool:
    """Whether anybody on the internet would reach the same host there."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(found, _V6) and found.ipv4_mapped:
        found = found.ipv4_mapped
    if found.is_multicast or found.is_reserved or found.is_unspecified or not found.is_global:
        return False
    nets = (*_NEVER, *_TRANSLATED)
    return not any(net.version == found.version and found in net for net in nets)


def session(seconds: float, *, local: bool = False) -> Session:
    """For one download: connects to public addresses (`local`: to loopback), and hangs up in time.

    No proxy, no credentials from the environment, no compression asked for.
    """
    made = Session()
    made.trust_env = False
    made.headers["Accept-Encoding"] = "identity"
    adapter = _Adapter(seconds, local=local)
    made.mount("https://", adapter)
    made.mount("http://", adapter)
    return made


class _Adapter(HTTPAdapter):
    def __init__(self, seconds: float, *, local: bool) -> None:
        self._watch = _Watch(seconds)
        self._local = local
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        manager: PoolManager = self.poolmanager
        manager.pool_classes_by_scheme = _pools(self._watch, local=self._local)

    def close(self) -> None:
        self._watch.end()
        super().close()


class _Watch:
    """Hangs up when the time is over: a slow sender must not hold a worker."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._watched: list[tuple[threading.Timer, socket.socket]] = []

    def over(self, connection: socket.socket) -> None:
        """Watch over a connection, by a twin: TLS takes the socket itself away."""
        twin = connection.dup()
        timer = threading.Timer(self._seconds, _hang_up, (twin,))
        timer.daemon = True
        timer.start()
        self._watched.append((timer, twin))

    def end(self) -> None:
        for timer, twin in self._watched:
            timer.cancel()
            twin.close()


def _hang_up(connection: socket.socket) -> None:
    try:
        connection.shutdown(socket.SHUT_RDWR)
    except OSError:  # it is closed already
        return


def _pools(watch: _Watch, *, local: bool) -> dict[str, Any]:
    """Pools whose connections take only addresses that pass, and are watched over."""

    class Dialling:
        _dns_host: str
        port: int
        timeout: Any
        socket_options: Any

        def _new_conn(self) -> socket.socket:
            address = looked_up(self._dns_host, self.port, local=local)
            made = create_connection(
                (address, self.port), self.timeout, socket_options=self.socket_options
            )
            watch.over(made)
            return made

    class Plain(Dialling, HTTPConnection):
        pass

    class Secured(Dialling, HTTPSConnection):
        pass

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecuredPool(HTTPSConnectionPool):
        ConnectionCls = Secured

    return {"http": PlainPool, "https": SecuredPool}


def looked_up(host: str, port: int, *, local: bool = False) -> str:
    """The first address of a host. RejectedError if any of its addresses is not public."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NameResolutionError(host, None, socket.gaierror(str(error))) from None  # type: ignore[arg-type]  # urllib3 itself has no connection there
    addresses = [str(place[0]) for *_, place in found]
    if local:
        passing = all(ipaddress.ip_address(a).is_loopback for a in addresses)
    else:
        passing = all(map(is_public, addresses))
    if not addresses or not passing:
        raise RejectedError("the file lies on a host that is not public")
    return addresses[0]
