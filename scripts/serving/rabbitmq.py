"""RabbitMQ: one node with a name, a cookie and a port mapper of its own, AMQP with and without TLS."""

import base64
import secrets
import socket
import struct
import urllib.error
import urllib.request

from serving.certificate import Certificate
from serving.errors import NotInstalled
from serving.server import PASSWORD, USER, Server, program

# Debian's rabbitmq-server on PATH changes to the user rabbitmq; the one in this folder runs as whoever calls it.
PROGRAMS = "/usr/lib/rabbitmq/bin"

SETTINGS = """\
listeners.tcp.1 = 127.0.0.1:{amqp}
listeners.ssl.1 = 127.0.0.1:{tls}
ssl_options.cacertfile = {certificate}
ssl_options.certfile = {certificate}
ssl_options.keyfile = {key}
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
management.tcp.ip = 127.0.0.1
management.tcp.port = {management}
default_user = {user}
default_pass = {password}
loopback_users = none
raft.wal_max_size_bytes = 67108864
log.console = true
log.console.level = info
log.file = false
"""


class RabbitMQ(Server):
    name = "rabbitmq"
    port_names = ("amqp", "tls", "management", "distribution", "mapper")

    def require(self) -> None:
        if not (program("rabbitmq-server", PROGRAMS) and program("epmd")):
            raise NotInstalled("RabbitMQ is not installed. Run: scripts/servers install")

    def prepare(self, certificate: Certificate) -> None:
        (self.home / "rabbitmq.conf").write_text(
            SETTINGS.format(
                **self.ports,
                certificate=certificate.certificate,
                key=certificate.key,
                user=USER,
                password=PASSWORD,
            )
        )
        (self.home / "advanced.config").write_text("[].\n")
        (self.home / "environment").touch()  # in place of /etc/rabbitmq/rabbitmq-env.conf
        (self.home / "plugins").write_text("[rabbitmq_management].\n")
        (self.home / "node").write_text(f"eventmill-{secrets.token_hex(4)}@localhost")
        cookie = self.home / ".erlang.cookie"
        cookie.write_text(secrets.token_hex(10))
        cookie.chmod(0o400)

    def environment(self) -> dict[str, str]:
        """Also what `rabbitmqctl` needs to reach this node and no other. Debian's own settings have no say."""
        home = self.home
        return {
            "HOME": str(home),
            "ERL_EPMD_PORT": str(self.ports["mapper"]),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": (home / "node").read_text(),
            "RABBITMQ_DIST_PORT": str(self.ports["distribution"]),
            "RABBITMQ_CONF_ENV_FILE": str(home / "environment"),
            "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
            "RABBITMQ_LOG_BASE": str(home / "logs"),
            "RABBITMQ_SCHEMA_DIR": str(home / "schema"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
            "RABBITMQ_PID_FILE": str(home / "pid"),
            # Without it a shell stays in front of the node, and signals would go to the shell.
            "RABBITMQ_ALLOW_INPUT": "yes",
            # Idle schedulers sleep in place of spinning: there may be two cores for three servers and the tests.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none "
            "-noinput -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def launch(self) -> None:
        # epmd maps node names to ports. Started here, it ends here; the node would leave one behind as a daemon.
        mapper = ["-port", str(self.ports["mapper"]), "-address", "127.0.0.1"]
        self.spawn([str(program("epmd")), *mapper], {})
        while not _listens(self.ports["mapper"]) and self.alive():
            pass
        self.spawn([str(program("rabbitmq-server", PROGRAMS))], self.environment())

    def answers(self) -> bool:
        return self._speaks_amqp() and self._serves_management()  # through which tests make their virtual hosts

    def _speaks_amqp(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.ports["amqp"]), timeout=5) as connection:
                connection.settimeout(5)
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                frame = connection.recv(11)
                return len(frame) == 11 and struct.unpack(">HH", frame[7:]) == (10, 10)  # connection.start
        except OSError:
            return False

    def _serves_management(self) -> bool:
        request = urllib.request.Request(f"http://127.0.0.1:{self.ports['management']}/api/vhosts")
        request.add_header("Authorization", "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode())
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with direct.open(request, timeout=5) as response:
                return bool(response.status == 200)
        except (OSError, urllib.error.URLError):
            return False

    def addresses(self) -> dict[str, str]:
        at = f"{USER}:{PASSWORD}@127.0.0.1"
        return {
            "EVENTMILL_TEST_RABBITMQ": f"amqp://{at}:{self.ports['amqp']}/",
            "EVENTMILL_TEST_RABBITMQ_TLS": f"amqps://{at}:{self.ports['tls']}/",
            "EVENTMILL_TEST_RABBITMQ_MANAGEMENT": f"http://{at}:{self.ports['management']}",
        }


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
