"""Make `.venv` from a lock beside this file: `python3 requirements/install.py embedded`, or `dev` for everything.

uv installs the packages. If uv is not available, pip installs them, from the same hashes. Their output is appended to
`.venv/install.log`. The syntax is that of Python 3.6, so that an older Python gets an error message instead of a
SyntaxError.
"""

import os
import subprocess
import sys

OLDEST = (3, 11)
HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
VENV = os.path.join(ROOT, ".venv")
PYTHON = os.path.join(VENV, "bin", "python")
LOG = os.path.join(VENV, "install.log")

LOCKS = {"embedded": ["embedded"], "dev": ["dev", "embedded"]}
"""Lock -> stamps to write: the lock for development includes the other one."""

NO_NETWORK = ("No matching distribution found", "NewConnectionError", "NameResolutionError", "Max retries exceeded")
"""Signs in pip's output that it cannot reach its index."""


class Failed(Exception):
    """Failure with a message for the user."""


def main(lock):
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:2]))
        raise Failed(
            f"Dabbawala needs Python 3.11 or newer, and {sys.executable} is {found}: install one and name it, as in "
            "`make PYTHON=python3.11`."
        )
    if not has_pip():
        make_venv()
    say(f"Installing what requirements/{lock}.txt locks (half a minute, the first time)")
    open(LOG, "w").close()
    if not (install_with_uv(lock) or install_with_pip(lock)):
        raise Failed(why_not())
    for stamp in LOCKS[lock]:
        open(os.path.join(VENV, "installed-" + stamp), "w").close()


def has_pip():
    """Return whether the environment is complete: not interrupted while it was made, and its Python exists."""
    return os.path.exists(PYTHON) and subprocess.call([PYTHON, "-c", "import pip"], stderr=subprocess.DEVNULL) == 0


def make_venv():
    say(f"Making .venv with {sys.executable}")
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", VENV], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if made.returncode == 0:
        return
    subprocess.call(["rm", "-rf", VENV])
    said = made.stdout.decode(errors="replace").strip()
    if "ensurepip" in said or "No module named venv" in said:
        raise Failed(
            "This Python cannot make a virtual environment: install its venv module (on Debian and Ubuntu "
            "`apt install python3-venv`) and start again."
        )
    raise Failed(f"Python could not make .venv: {last_line(said)}")


def install_with_uv(lock):
    """Install with uv. It ignores pip's settings, so pass it the certificate and the index that pip uses."""
    settings = pip_settings()
    environment = dict(os.environ)
    options = ["--quiet", "--python", PYTHON, "--require-hashes"]
    if "cert" in settings:
        options.append("--system-certs")
        environment["SSL_CERT_FILE"] = settings["cert"]
    if "index-url" in settings:
        environment["UV_DEFAULT_INDEX"] = settings["index-url"]
    uv = [os.path.join(VENV, "bin", "uv"), "pip", "install"]
    return (
        run(pip("install", "--require-hashes", "-r", path("uv")))
        and run(uv + options + ["-r", path(lock)], environment)
        and install_project()
    )


def install_with_pip(lock):
    say("uv failed; installing with pip (about a minute)")
    return run(pip("install", "--require-hashes", "-r", path(lock))) and install_project()


def install_project():
    """Install the project as editable, so that Faust imports from this tree, with the locked setuptools and offline."""
    return run(pip("install", "--no-build-isolation", "--no-deps", "--no-index", "--editable", ROOT))


def pip(command, *arguments):
    return [PYTHON, "-m", "pip", command, "--quiet", "--disable-pip-version-check", "--no-input", *arguments]


def pip_settings():
    """Return pip's settings by option; the environment overrides the files, as in pip."""
    said = subprocess.run([PYTHON, "-m", "pip", "config", "list"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    found = {}
    for line in sorted(said.stdout.decode().splitlines(), key=lambda line: not line.startswith(":env:")):
        name, _, value = line.partition("=")
        found.setdefault(name.rpartition(".")[2], value.strip("'\""))
    return found


def path(lock):
    return os.path.join(HERE, lock + ".txt")


def run(command, environment=None):
    with open(LOG, "a") as log:
        return subprocess.call(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment) == 0


def why_not():
    with open(LOG, errors="replace") as log:
        said = log.read()
    if "No space left on device" in said:
        return "The disk is full: .venv needs up to 1 GB; free some space and start again."
    if any(sign in said for sign in NO_NETWORK):
        return (
            "The Python packages could not be fetched: check the network or, where a mirror is used, pip's settings "
            f"(index-url, cert, proxy), and start again; pip's last word was: {last_line(said)}"
        )
    return f"The Python packages could not be installed: {last_line(said)} ({LOG} has it all)."


def last_line(said):
    return ([line.strip() for line in said.splitlines() if line.strip()] or ["nothing"])[-1]


def say(line):
    print(line, flush=True)


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except Failed as failed:
        sys.exit(str(failed))
    except KeyboardInterrupt:
        sys.exit("Stopped; start again and it goes on.")
