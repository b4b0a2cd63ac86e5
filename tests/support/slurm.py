"""A Slurm of one machine, started by a test: its own munge, controller and daemon, on 127.0.0.1."""

import contextlib
import getpass
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from support.remote_servers import free_ports

_START_S = 60
_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))


def program(name: str) -> str | None:
    return shutil.which(name, path=_PATH)


def why_not() -> str | None:
    """Why Slurm can't be started here, or None."""
    missing = [name for name in ("slurmctld", "slurmd", "munged", "sbatch", "squeue") if program(name) is None]
    if missing:
        return f"not installed: {', '.join(missing)} (apt-get install slurmctld slurmd munge)"
    return None if os.getuid() == 0 else "slurmd needs root"


@contextlib.contextmanager
def slurm(folder: Path, cpus: int = 4) -> Iterator[dict[str, str]]:
    """Yield the environment in which `sbatch` reaches the cluster; its processes end with the block."""
    host, ports = socket.gethostname().split(".")[0], free_ports(2)
    folder.mkdir(mode=0o755)
    key, socket_path = folder / "munge.key", folder / "munge.socket"
    key.write_bytes(secrets.token_bytes(64))
    key.chmod(0o400)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    conf = folder / "slurm.conf"
    conf.write_text(
        f"""
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser={getpass.getuser()}
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={socket_path}
CredType=cred/munge
CryptoType=crypto/munge
StateSaveLocation={folder / "state"}
SlurmdSpoolDir={folder / "spool"}
SlurmctldPidFile={folder / "slurmctld.pid"}
SlurmdPidFile={folder / "slurmd.pid"}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
SchedulerParameters=sched_interval=1,batch_sched_delay=1,sched_min_interval=100000
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=500 State=UNKNOWN
PartitionName=all Nodes={host} Default=YES MaxTime=10 State=UP OverSubscribe=FORCE:4
"""
    )
    environment = {**os.environ, "SLURM_CONF": str(conf), "PATH": _PATH}
    commands = {
        "munged": [
            "--foreground",
            "--force",
            f"--key-file={key}",
            f"--socket={socket_path}",
            f"--pid-file={folder / 'munged.pid'}",
            f"--log-file={folder / 'munged.log'}",
            f"--seed-file={folder / 'munged.seed'}",
        ],
        "slurmctld": ["-D", "-c", "-f", str(conf)],
        "slurmd": ["-D", "-f", str(conf)],
    }
    running: list[subprocess.Popen[bytes]] = []
    try:
        for name, arguments in commands.items():
            with open(folder / f"{name}.out", "wb") as log:
                running.append(
                    subprocess.Popen([str(program(name)), *arguments], env=environment, stdout=log, stderr=log)
                )
            if name == "munged":
                _wait(socket_path.exists)
        _wait(lambda: _idle(environment))
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
        for process in reversed(running):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _idle(environment: dict[str, str]) -> bool:
    done = subprocess.run(["sinfo", "-h", "-o", "%T"], env=environment, capture_output=True, text=True)
    return "idle" in done.stdout


def _wait(condition) -> None:
    end = time.monotonic() + _START_S
    while not condition():
        assert time.monotonic() < end, "Slurm did not start"
        time.sleep(0.1)
