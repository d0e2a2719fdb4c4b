"""Starts Flink, Spark and Prism on loopback, and gives the Beam options for each."""

import contextlib
import json
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.distributed.packages import fetch_jars, fetch_prism
from tests.distributed.processes import Process, free_ports, is_listening, missing_programs

HOST = "localhost"
TASK_MANAGERS, SLOTS = 2, 2
PARALLELISM = 2
_START_SECONDS = 120
_IDLE_MILLISECONDS = 20_000
# What Flink and Spark reach into on Java 17, as their own start scripts have it.
_JAVA_PACKAGES = (
    "java.base/java.io",
    "java.base/java.lang",
    "java.base/java.lang.invoke",
    "java.base/java.lang.reflect",
    "java.base/java.net",
    "java.base/java.nio",
    "java.base/java.text",
    "java.base/java.time",
    "java.base/java.util",
    "java.base/java.util.concurrent",
    "java.base/java.util.concurrent.atomic",
    "java.base/java.util.concurrent.locks",
    "java.base/sun.net.util",
    "java.base/sun.nio.ch",
    "java.base/sun.nio.cs",
    "java.base/sun.security.action",
    "java.base/sun.util.calendar",
)


@dataclass(frozen=True)
class Engine:
    """An engine that is ready.

    Args:
        name: str. Its name in the table.
        options: tuple of str. What a user writes behind `--`.
        cluster: FlinkCluster or None. Its servers, where there are some that a test may kill.
    """

    name: str
    options: tuple[str, ...]
    cluster: "FlinkCluster | None" = None


@dataclass(frozen=True)
class Kind:
    """An engine that may be started.

    Args:
        name: str. Its name.
        needs: tuple of str. Programs that must be on the path.
        start: function of a directory. Gives the engine while its block runs; the directory is for logs.
    """

    name: str
    needs: tuple[str, ...]
    start: Callable[[Path], contextlib.AbstractContextManager[Engine]]

    def missing(self) -> str:
        """Why it cannot be started here; empty where it can."""
        names = missing_programs(*self.needs)
        return f"{self.name} needs {', '.join(names)}" if names else ""


@contextlib.contextmanager
def processes(_: Path) -> Iterator[Engine]:
    """Beam's local runner with two worker processes."""
    yield Engine("FnApiRunner, 2 processes", ("--direct_running_mode=multi_processing", "--direct_num_workers=2"))


@contextlib.contextmanager
def prism(_: Path) -> Iterator[Engine]:
    """Beam's own local engine, which the launcher starts and ends."""
    yield Engine("Prism", ("--runner=PrismRunner", f"--prism_location={fetch_prism()}"))


@contextlib.contextmanager
def flink(logs: Path) -> Iterator[Engine]:
    """A standalone cluster of two task managers, Beam's job server, and a pool of SDK workers."""
    cluster = FlinkCluster(fetch_jars("flink"), logs)
    try:
        cluster.start()
        yield Engine("Flink, 2 task managers", cluster.options, cluster)
    finally:
        cluster.stop()


@contextlib.contextmanager
def spark(logs: Path) -> Iterator[Engine]:
    """Spark inside Beam's job server, two threads wide, and a pool of SDK workers."""
    with contextlib.ExitStack() as stack:
        pool = WorkerPool(logs)
        stack.callback(pool.stop)
        driver = ("org.apache.beam.runners.spark.SparkJobServerDriver", f"--spark-master-url=local[{PARALLELISM}]")
        server = JobServer(fetch_jars("spark"), driver, logs)
        stack.callback(server.stop)
        yield Engine("Spark, in its job server", (*server.options, *pool.options))


KINDS = {
    kind.name: kind
    for kind in (
        Kind("processes", (), processes),
        Kind("prism", ("go",), prism),
        Kind("flink", ("java", "mvn"), flink),
        Kind("spark", ("java", "mvn"), spark),
    )
}


class WorkerPool:
    """Starts SDK workers, processes of Python, when an engine asks for one."""

    def __init__(self, logs: Path) -> None:
        (self._port,) = free_ports(1)
        command = [sys.executable, "-m", "apache_beam.runners.worker.worker_pool_main", f"--service_port={self._port}"]
        # The pool starts `python`, whichever is first on the path.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self.process = Process("workers", command, logs, {"PATH": path, "PYTHONPATH": os.pathsep.join(sys.path)})
        self.process.wait_for(lambda: is_listening(self._port), _START_SECONDS)

    @property
    def options(self) -> tuple[str, ...]:
        """What tells an engine to use it, and to keep a worker from one stage of a job to the next."""
        location = ("--environment_type=EXTERNAL", f"--environment_config={HOST}:{self._port}")
        return (*location, f"--environment_cache_millis={_IDLE_MILLISECONDS}")

    def stop(self) -> None:
        """End it and its workers."""
        self.process.stop()


class JobServer:
    """Beam's job server of an engine that runs on Java."""

    def __init__(self, jars: Path, driver: tuple[str, ...], logs: Path) -> None:
        self._port, artifacts = free_ports(2)
        ports = (f"--job-port={self._port}", f"--artifact-port={artifacts}", "--expansion-port=0")
        location = (f"--job-host={HOST}", f"--artifacts-dir={logs / 'artifacts'}")
        self.process = Process("job-server", java(jars, 768, *driver, *location, *ports), logs)
        self.process.wait_for(lambda: is_listening(self._port), _START_SECONDS)

    @property
    def options(self) -> tuple[str, ...]:
        """What sends a job to it."""
        return ("--runner=PortableRunner", f"--job_endpoint={HOST}:{self._port}")

    def stop(self) -> None:
        """End it."""
        self.process.stop()


@dataclass
class FlinkCluster:
    """A job manager, task managers, a job server and a pool of SDK workers.

    Args:
        jars: Path. The folder of Flink's and Beam's jars.
        logs: Path. Where logs, configuration and temporary files go.
    """

    jars: Path
    logs: Path
    task_managers: list[Process] = field(default_factory=list)
    _running: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    def start(self) -> None:
        """Start all, and wait until they know of one another."""
        self._rest, rpc = free_ports(2)
        self._write_configuration(rpc)
        manager = self._flink("job-manager", "runtime.entrypoint.StandaloneSessionClusterEntrypoint")
        manager.wait_for(lambda: is_listening(self._rest), _START_SECONDS)
        for _ in range(TASK_MANAGERS):
            self.add_task_manager()
        self.pool = WorkerPool(self.logs)
        self._running.callback(self.pool.stop)
        driver = ("org.apache.beam.runners.flink.FlinkJobServerDriver", f"--flink-master={HOST}:{self._rest}")
        self._server = JobServer(self.jars, driver, self.logs)
        self._running.callback(self._server.stop)

    @property
    def options(self) -> tuple[str, ...]:
        """What a user writes behind `--`."""
        return (*self._server.options, *self.pool.options, f"--parallelism={PARALLELISM}")

    def add_task_manager(self) -> None:
        """Start one more, and wait until the job manager knows of it."""
        number = len(self.task_managers)
        self.task_managers.append(self._flink(f"task-manager-{number}", "runtime.taskexecutor.TaskManagerRunner"))
        alive = sum(one.is_running() for one in self.task_managers)
        self.task_managers[-1].wait_for(lambda: self._registered() >= alive, _START_SECONDS)

    def jobs(self) -> list[str]:
        """The ids of all jobs, finished ones too."""
        return [job["id"] for job in self._ask("/jobs")["jobs"]]

    def failures(self, job: str) -> int:
        """How often a job, or a part of it, failed and was started again."""
        return len(self._ask(f"/jobs/{job}/exceptions")["exceptionHistory"]["entries"])

    def stop(self) -> None:
        """End all, by their ids, the newest first."""
        self._running.close()

    def _flink(self, name: str, main: str) -> Process:
        command = java(self.jars, 512, f"org.apache.flink.{main}", "--configDir", str(self._configuration.parent))
        process = Process(name, command, self.logs)
        self._running.callback(process.stop)
        return process

    @property
    def _configuration(self) -> Path:
        return self.logs / "conf" / "flink-conf.yaml"

    def _write_configuration(self, rpc: int) -> None:
        settings = {
            "jobmanager.rpc.address": HOST,
            "jobmanager.rpc.port": rpc,
            "jobmanager.memory.process.size": "1g",
            "rest.address": HOST,
            "rest.bind-address": HOST,
            "rest.port": self._rest,
            "taskmanager.host": HOST,
            "taskmanager.numberOfTaskSlots": SLOTS,
            "taskmanager.cpu.cores": 1.0,
            # What Flink's start script would work out of a total.
            "taskmanager.memory.framework.heap.size": "128m",
            "taskmanager.memory.framework.off-heap.size": "128m",
            "taskmanager.memory.jvm-metaspace.size": "256m",
            "taskmanager.memory.jvm-overhead.min": "128m",
            "taskmanager.memory.jvm-overhead.max": "128m",
            "taskmanager.memory.task.heap.size": "256m",
            "taskmanager.memory.task.off-heap.size": "0m",
            "taskmanager.memory.network.min": "256m",
            "taskmanager.memory.network.max": "256m",
            "taskmanager.memory.managed.size": "128m",
            # Each task manager has a part of the job, so that losing any one is felt.
            "cluster.evenly-spread-out-slots": "true",
            # Lost task managers are noticed within seconds, and a job that loses one is started again.
            "heartbeat.interval": 1000,
            "heartbeat.timeout": 8000,
            "restart-strategy.type": "fixed-delay",
            "restart-strategy.fixed-delay.attempts": 5,
            # Longer than a worker is kept unused: Beam offers one that has died until then.
            "restart-strategy.fixed-delay.delay": f"{_IDLE_MILLISECONDS // 1000 + 5} s",
            # Beam's jars are on the cluster's own class path.
            "classloader.resolve-order": "parent-first",
            "io.tmp.dirs": self.logs / "tmp",
        }
        (self.logs / "tmp").mkdir(parents=True, exist_ok=True)
        self._configuration.parent.mkdir(parents=True, exist_ok=True)
        self._configuration.write_text("".join(f"{name}: {value}\n" for name, value in settings.items()))

    def _registered(self) -> int:
        """How many task managers the job manager knows of; 0 while it does not answer yet."""
        try:
            return self._ask("/overview")["taskmanagers"]
        except urllib.error.URLError:
            return 0

    def _ask(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://{HOST}:{self._rest}{path}", timeout=30) as answer:
            return json.load(answer)


def java(jars: Path, megabytes: int, *arguments: str) -> list[str]:
    """The command that runs a class of the jars in a folder, in a heap of so many MiB."""
    opened = [f"--add-opens={package}=ALL-UNNAMED" for package in _JAVA_PACKAGES]
    return ["java", *opened, f"-Xmx{megabytes}m", "-cp", f"{jars}/*", *arguments]
