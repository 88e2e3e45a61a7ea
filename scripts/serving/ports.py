"""Free ports that stay ours while a server is down."""

import random
import socket


def free_ports(count: int) -> list[int]:
    """Ports of 127.0.0.1 that nobody listens on.

    They lie below the range that the system hands out to outgoing connections: a server that restarts must find its
    port free. Drawn by chance, so that two checkouts that start at the same moment hardly ever draw the same.
    """
    found: list[int] = []
    while len(found) < count:
        port = random.randrange(12_000, 32_000)
        if port not in found and _free(port):
            found.append(port)
    return found


def _free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
