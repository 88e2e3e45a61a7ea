"""The servers' programs: Debian's packages for PostgreSQL, RabbitMQ and Java, and Maven's artifacts for Kafka."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from serving.errors import NotInstalled, ServingError
from serving.kafka import VERSION, jars, java
from serving.postgres import programs as postgres_programs
from serving.rabbitmq import PROGRAMS as RABBITMQ_PROGRAMS
from serving.server import program

# Two files that exist while packages are installed, so that Debian starts no service and makes no cluster of its own.
NO_SERVICES = (Path("/usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 101\n")
NO_CLUSTER = (Path("/etc/postgresql-common/createcluster.d/eventmill.conf"), "create_main_cluster = false\n")

POOLER = "/usr/sbin"  # where Debian keeps pgbouncer, which a test of PostgreSQL starts for itself

# Kafka logs through slf4j, and leaves the choice of a log to whoever runs it.
POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>eventmill</groupId>
  <artifactId>kafka-for-tests</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>2.25.5</version>
    </dependency>
  </dependencies>
</project>
"""


SCRIPT = Path(__file__).resolve().parents[1] / "servers"


def install(*, only_packages: bool = False) -> None:
    """Install what is missing. Nothing is done, and no network needed, when all is there.

    Debian's packages take root, or a sudo that asks no password; Kafka's jars go into the caller's cache.
    """
    packages = _missing_packages()
    if packages and os.geteuid() != 0:
        _as_root(packages)
    elif packages:
        _apt(packages)
    if not only_packages and not (jars() / "complete").exists():
        _maven()


def _missing_packages() -> list[str]:
    missing = []
    if not (postgres_programs() and program("psql")):
        missing += ["postgresql", "postgresql-client"]
    if not program("pgbouncer", POOLER):
        missing += ["pgbouncer"]
    if not program("rabbitmq-server", RABBITMQ_PROGRAMS):
        missing += ["rabbitmq-server"]
    if not java():
        missing += ["default-jre-headless"]
    if not program("openssl"):
        missing += ["openssl"]
    if not (jars() / "complete").exists() and not program("mvn"):
        missing += ["maven"]
    return missing


def _as_root(packages: list[str]) -> None:
    command = [str(SCRIPT), "install", "--packages"]
    sudo = program("sudo")
    if not (
        sudo and subprocess.run([sudo, "-n", "true"], capture_output=True, timeout=30, check=False).returncode == 0
    ):
        raise NotInstalled(f"missing: {', '.join(packages)}. Run: sudo {' '.join(command)}")
    print(f"as root: installing {', '.join(packages)}", file=sys.stderr)
    _run([sudo, "-n", *command], 1800, dict(os.environ))


def _apt(packages: list[str]) -> None:
    if not program("apt-get"):
        raise NotInstalled(f"there is no apt-get here. Install what Debian calls: {' '.join(packages)}")
    print(f"installing {', '.join(packages)}", file=sys.stderr)
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    with ExitStack() as stack:
        stack.enter_context(_for_now(*NO_SERVICES))
        stack.enter_context(_for_now(*NO_CLUSTER))
        _run(["apt-get", "update", "-qq"], 300, environment)
        _run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], 1200, environment)


@contextmanager
def _for_now(path: Path, text: str) -> Iterator[None]:
    """The file exists within the block; one that somebody else has put there is left as it is."""
    if path.exists():
        yield
        return
    made = [parent for parent in path.parents if not parent.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    try:
        yield
    finally:
        path.unlink()
        for parent in made:
            if not any(parent.iterdir()):
                parent.rmdir()


def _maven() -> None:
    """Kafka's jars into the cache folder; it appears there whole or not at all."""
    print(f"fetching Kafka {VERSION} into {jars()}", file=sys.stderr)
    jars().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f"{jars().name}-", dir=jars().parent) as folder:
        (Path(folder) / "pom.xml").write_text(POM)
        goal = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
        options = ["-DincludeScope=runtime", f"-DoutputDirectory={folder}/jars"]
        _run([str(program("mvn")), "-B", "-q", "-f", folder, goal, *options], 1200, dict(os.environ))
        (Path(folder) / "jars" / "complete").touch()
        shutil.rmtree(jars(), ignore_errors=True)
        (Path(folder) / "jars").rename(jars())


def _run(command: list[str], seconds: float, environment: dict[str, str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise ServingError(f"not done after {seconds:.0f} s: {' '.join(command)}") from None
    if done.returncode:
        raise ServingError(f"failed: {' '.join(command)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
