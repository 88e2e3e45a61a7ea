"""Apache Kafka: one node that is broker and controller, from the jars of its Maven artifact."""

import os
import re
import shutil
import socket
import struct
import subprocess
import uuid
from base64 import urlsafe_b64encode
from pathlib import Path

from serving.certificate import Certificate
from serving.errors import NotInstalled, ServingError
from serving.server import PASSWORD, USER, Server

VERSION = os.environ.get("EVENTMILL_KAFKA_VERSION", "4.4.0")

SETTINGS = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls},\
BEHIND://127.0.0.1:{behind},CONTROLLER://127.0.0.1:{controller}
# A client goes on at the address that the broker names. At BEHIND it names FRONT, where a test puts its proxy.
advertised.listeners=PLAINTEXT://127.0.0.1:{plain},SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls},\
BEHIND://127.0.0.1:{front},CONTROLLER://127.0.0.1:{controller}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,BEHIND:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=PLAINTEXT
controller.listener.names=CONTROLLER
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
log.dirs={home}/data
auto.create.topics.enable=false
num.partitions=1
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=4
log.cleaner.dedupe.buffer.size=16777216
# Tests of lost members cannot wait for the minutes that production may want. Clients' defaults stay as they are.
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.min.heartbeat.interval.ms=200
# A killed broker is let in again only when its predecessor's session has ended.
broker.session.timeout.ms=2000
broker.heartbeat.interval.ms=500
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256
listener.name.sasl.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_{user}="{password}";
listener.name.sasl.scram-sha-256.sasl.jaas.config=\
org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={home}/keystore.pem
"""

LOGGING = """\
rootLogger.level = INFO
rootLogger.appenderRef.out.ref = out
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d %p %c{1} %m%n
"""

# A small heap, and a collector without threads of its own.
JAVA_OPTIONS = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-Djava.awt.headless=true"]


def jars() -> Path:
    """The folder of the broker's jars; EVENTMILL_KAFKA_FOLDER names another one."""
    if named := os.environ.get("EVENTMILL_KAFKA_FOLDER"):
        return Path(named).absolute()
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "eventmill" / f"kafka-{VERSION}"


def java() -> str | None:
    """A Java 17 or newer: JAVA_HOME's, or the one on PATH."""
    for home in (os.environ.get("JAVA_HOME"), None):
        found = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
        if found:
            said = subprocess.run(
                [found, "-version"], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
            ).stderr
            version = re.search(r'version "(\d+)', said)
            if version and int(version[1]) >= 17:
                return found
    return None


class Kafka(Server):
    name = "kafka"
    port_names = ("plain", "sasl", "tls", "behind", "front", "controller")

    def require(self) -> None:
        if java() is None:
            raise NotInstalled("Kafka needs Java 17 or newer. Run: scripts/servers install")
        if not (jars() / "complete").exists():
            raise NotInstalled(f"Kafka {VERSION} is not in {jars()}. Run: scripts/servers install")

    def prepare(self, certificate: Certificate) -> None:
        (self.home / "server.properties").write_text(
            SETTINGS.format(**self.ports, home=self.home, user=USER, password=PASSWORD)
        )
        (self.home / "log4j2.properties").write_text(LOGGING)
        (self.home / "keystore.pem").write_text(certificate.pem())
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if cluster.startswith("-"):  # which the tool would take for an option
            cluster = "a" + cluster[1:]
        scram = f"SCRAM-SHA-256=[name={USER},password={PASSWORD}]"
        format_it = ["format", "--standalone", "--cluster-id", cluster, "--config", "server.properties"]
        done = subprocess.run(
            [*self._java("-XX:TieredStopAtLevel=1"), "kafka.tools.StorageTool", *format_it, "--add-scram", scram],
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise ServingError(f"Kafka's storage tool failed:\n{done.stdout}{done.stderr}")

    def _java(self, *options: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self.home}/log4j2.properties"
        return [str(java()), *JAVA_OPTIONS, *options, logging, "-cp", f"{jars()}/*"]

    def launch(self) -> None:
        self.spawn([*self._java(), "kafka.Kafka", "server.properties"], {})

    def answers(self) -> bool:
        """Whether the broker names itself in its metadata: it does when it has been let into the cluster."""
        metadata, version, client = 3, 1, b"eventmill-start"
        body = struct.pack(f">hhih{len(client)}si", metadata, version, 1, len(client), client, 0)
        try:
            with socket.create_connection(("127.0.0.1", self.ports["plain"]), timeout=5) as connection:
                connection.settimeout(5)
                connection.sendall(struct.pack(">i", len(body)) + body)
                reply = connection.recv(12)
                return len(reply) == 12 and struct.unpack(">iii", reply)[2] == 1  # size, correlation, brokers
        except OSError:
            return False

    def addresses(self) -> dict[str, str]:
        return {
            "EVENTMILL_TEST_KAFKA": f"kafka://127.0.0.1:{self.ports['plain']}",
            "EVENTMILL_TEST_KAFKA_SASL": f"kafka://{USER}:{PASSWORD}@127.0.0.1:{self.ports['sasl']}",
            "EVENTMILL_TEST_KAFKA_TLS": f"kafka://127.0.0.1:{self.ports['tls']}",
            "EVENTMILL_TEST_KAFKA_BEHIND": f"kafka://127.0.0.1:{self.ports['behind']}",
            "EVENTMILL_TEST_KAFKA_FRONT": f"kafka://127.0.0.1:{self.ports['front']}",
        }
