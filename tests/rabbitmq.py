"""A RabbitMQ node of one's own for the tests: Debian's rabbitmq-server as a plain process, on free ports."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from stack.guard import Guard

SERVER = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
CONTROL = SERVER.with_name("rabbitmqctl")  # the one on the PATH would become the user rabbitmq first


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class RabbitMq:
    """``with RabbitMq() as broker``: ``broker.url`` is for CELERY_BROKER_URL; ``restart`` keeps what is durable."""

    def __init__(self) -> None:
        if not SERVER.exists():
            raise FileNotFoundError("these tests need Debian's rabbitmq-server: apt-get install rabbitmq-server")
        self._home = Path(tempfile.mkdtemp(prefix="millrace-rabbitmq-"))
        self._port, self._distribution, self._epmd = _free_port(), _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._guard = Guard()
        self._vhosts = 0
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def __enter__(self) -> "RabbitMq":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.stop()
        self._guard.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def start(self) -> None:
        """Start the node and wait until it accepts connections, at most a minute."""
        with (self._home / "server.log").open("ab") as log:
            self._process = subprocess.Popen([SERVER], env=self._env(), stdout=log, stderr=log, start_new_session=True)
        self._guard.watch(self._process.pid, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError((self._home / "server.log").read_text()[-2000:])
            time.sleep(0.1)

    def _env(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._home),
            "ERL_EPMD_PORT": str(self._epmd),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": "millrace@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self._port),
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self._home / "data"),
            "RABBITMQ_LOG_BASE": str(self._home / "log"),
            "RABBITMQ_PID_FILE": str(self._home / "pid"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self._home / "plugins"),
            "RABBITMQ_CONF_ENV_FILE": str(self._home / "none"),
            "RABBITMQ_CONFIG_FILE": str(self._home / "none"),
        }

    def _answers(self) -> bool:
        """Whether AMQP is spoken: the port alone opens before the node can serve."""
        try:
            with socket.create_connection(("127.0.0.1", self._port), timeout=1) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return bool(connection.recv(1))
        except OSError:
            return False

    def control(self, *arguments: str) -> str:
        """What ``rabbitmqctl`` answers; it takes some seconds, being a virtual machine of its own."""
        command = [CONTROL, "--quiet", *arguments]
        done = subprocess.run(command, env=self._env(), capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise RuntimeError(f"rabbitmqctl {' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def new_vhost(self) -> str:
        """The URL of an empty virtual host: to who only sends and takes messages as good as a node."""
        self._vhosts += 1
        name = f"test-{self._vhosts}"
        self.control("add_vhost", name)
        self.control("set_permissions", "--vhost", name, "guest", ".*", ".*", ".*")
        return f"{self.url.removesuffix('//')}/{name}"

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered, until ``resume``."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, number)

    def kill(self) -> None:
        """SIGKILL to the node and everything it started."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def restart(self) -> None:
        self.kill()
        self.start()

    def lose(self) -> None:
        """Kill it, remove all it has kept and start it empty at the same address: what FLUSHALL is to Redis."""
        self.kill()
        shutil.rmtree(self._home / "data")
        self.start()

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGCONT)
            os.killpg(self._process.pid, number)
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        except ProcessLookupError:
            self._process.wait()
        self._guard.forget(self._process.pid)
        self._process = None
        # epmd leaves the group by itself (it daemonises); it is this node's own, on its own port
        subprocess.run(["epmd", "-port", str(self._epmd), "-kill"], capture_output=True)
