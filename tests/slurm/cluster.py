"""A Slurm of one machine for tests: munge, slurmctld and slurmd with a configuration of their own, ended by process id.

Snakemake's job step passes no SLURM_CONF on to `srun`, so that links in /etc/slurm lead to the configuration while it
runs. A machine that has a configuration there, or on which munge or a Slurm runs, is left alone.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTINGS = Path("/etc/slurm")
#: munge's folder, in which every client expects its socket.
MUNGE = Path("/run/munge")
FILES = ("slurm.conf", "gres.conf", "cgroup.conf")
LINKS = [SETTINGS / name for name in FILES]
#: What accounting needs beside them: Slurm keeps accounts in this database alone.
ACCOUNTANTS = ("slurmdbd", "sacctmgr", "sacct", "mariadbd")
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
#: Seconds after which something that should have come is given up: far more than it takes.
PATIENCE = 400

NAME = "ClusterName=diffbench-test\n"
SLURM = (
    NAME
    + """\
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
# A requeued job waits for twice the life of a credential, which is two minutes by default.
AuthInfo=cred_expire=10
SlurmctldPort={controller}
SlurmdPort={daemon}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmdSpoolDir={folder}/spool
StateSaveLocation={folder}/state
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Memory is looked at every second, and a job that has taken more than it asked for is ended.
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
{accounting}
SchedulerType=sched/backfill
SchedulerParameters=sched_min_interval=200000,batch_sched_delay=0,bf_interval=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
MinJobAge=3600
JobRequeue=1
KillWait=5
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory} Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""
)
GRES = "NodeName={host} Name=gpu Count=2 File={folder}/gpu[0-1]\n"
NO_ACCOUNTING = "AccountingStorageType=accounting_storage/none"
ACCOUNTING = """\
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={accounts}"""
DATABASE = """\
AuthType=auth/munge
DbdHost=localhost
DbdPort={accounts}
SlurmUser=root
PidFile={folder}/slurmdbd.pid
LogFile={folder}/slurmdbd.log
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={database}
StorageUser=slurm
StoragePass=none
"""
#: The account of a site that has accounting.
ACCOUNT = "lab"
# slurmd needs some plugin that it can load; nothing is constrained.
CGROUP = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint={folder}/cgroup
CgroupAutomount=no
ConstrainCores=no
ConstrainRAMSpace=no
ConstrainDevices=no
"""


def program(name: str) -> str | None:
    """The path of a program of Slurm or munge; None where it is not installed."""
    return shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")


def refusal(*more: str) -> str:
    """Why no Slurm, with further programs, can be started here; empty where one can."""
    if os.geteuid() != 0:
        return "starting a Slurm needs root"
    if missing := [name for name in (*PROGRAMS, *more) if program(name) is None]:
        return f"not installed: {', '.join(missing)} (`make test-system` prints the packages)"
    if not Path("/etc/munge/munge.key").is_file():
        return "munge has no key, /etc/munge/munge.key"
    if found := [path for path in LINKS if os.path.lexists(path) and not left_over(path)]:
        return f"this machine has a Slurm of its own: {found[0]} exists"
    if listens(MUNGE / "munge.socket.2"):
        return "munge runs on this machine already"
    return ""


def left_over(path: Path) -> bool:
    """Whether a file in /etc/slurm is a link of a test that was killed."""
    settings = path.resolve().with_name("slurm.conf")
    return path.is_symlink() and (not path.exists() or NAME in settings.read_text())


def listens(path: Path) -> bool:
    """Whether a process answers at a socket."""
    with socket.socket(socket.AF_UNIX) as connection, suppress(OSError):
        connection.connect(str(path))
        return True
    return False


def free_port() -> int:
    """A port that nothing uses now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass(frozen=True)
class Cluster:
    """A running Slurm of one node."""

    folder: Path
    node: str

    @staticmethod
    def ask(*words: object) -> str:
        """What a command of Slurm prints.

        Raises:
            CalledProcessError: when it fails.
        """
        return subprocess.run(
            [str(word) for word in words], check=True, capture_output=True, text=True
        ).stdout

    def jobs(self) -> dict[str, str]:
        """The state of every job and task of an array that Slurm remembers, by its id."""
        lines = self.ask("squeue", "--noheader", "--array", "--states=all", "--format=%i %T")
        return dict(line.split() for line in lines.splitlines())

    def of(self, rule: str) -> dict[str, str]:
        """The state of every job of a rule, by its id, the oldest first."""
        lines = self.ask(
            "squeue", "--noheader", "--array", "--states=all", "--sort=i", "--format=%i %T %k"
        )
        rows = [line.split(" ", 2) for line in lines.splitlines()]
        return {number: state for number, state, comment in rows if rule in comment}

    def asked(self, number: str, what: str) -> str:
        """What a job asked for, in squeue's format."""
        return self.ask(
            "squeue", "--noheader", f"--job={number}", "--states=all", f"--format={what}"
        ).strip()

    def clear(self) -> None:
        """Cancel what is left, and let the node take jobs."""
        self.ask("scancel", "--user=root")
        with suppress(subprocess.CalledProcessError):
            self.ask("scontrol", "update", f"nodename={self.node}", "state=resume")

    def tail(self) -> str:
        """The ends of the daemons' logs."""
        logs = sorted(self.folder.glob("*.log"))
        return "\n".join(f"{log.name}:\n{log.read_text()[-3000:]}" for log in logs)


@contextmanager
def cluster(folder: Path, accounting: bool = False) -> Iterator[Cluster]:
    """A block in which a Slurm of one node runs, with or without accounting; its files lie in the folder."""
    if why := refusal():
        raise RuntimeError(why)
    with ExitStack() as stack:
        found = Cluster(folder, socket.gethostname().partition(".")[0])
        ports = write_settings(folder, found.node, accounting)
        for link in LINKS:
            link.unlink(missing_ok=True)
            link.symlink_to(folder / link.name)
            stack.callback(link.unlink)
        start_munge(stack, folder)
        if accounting:
            start_accounting(stack, found, ports)
        for name in ("slurmctld", "slurmd"):
            daemon(stack, folder, [str(program(name)), "-D", "-f", str(folder / "slurm.conf")])
        until(lambda: "idle" in answer("sinfo", "--noheader", "--format=%T"), found)
        stack.callback(found.clear)
        yield found


def write_settings(folder: Path, host: str, accounting: bool) -> dict[str, int]:
    """Write the configuration, of a node with all processors and half of the memory of this machine; return ports."""
    for name in ("spool", "state", "cgroup"):
        (folder / name).mkdir()
    # A generic resource has to be a device: null devices stand for GPUs.
    for number in range(2):
        os.mknod(folder / f"gpu{number}", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**21
    ports = {name: free_port() for name in ("controller", "daemon", "accounts", "database")}
    values = {"folder": folder, "host": host, "cpus": os.cpu_count(), "memory": memory, **ports}
    values["accounting"] = ACCOUNTING.format(**ports) if accounting else NO_ACCOUNTING
    for name, text in zip(FILES, (SLURM, GRES, CGROUP), strict=True):
        (folder / name).write_text(text.format(**values))
    database = folder / "slurmdbd.conf"
    database.write_text(DATABASE.format(**values))
    # Slurm refuses one that others can read.
    database.chmod(0o600)
    return ports


def start_munge(stack: ExitStack, folder: Path) -> None:
    """Start munge as its own user, and wait for its socket."""
    if not MUNGE.exists():
        MUNGE.mkdir()
        shutil.chown(MUNGE, "munge", "munge")
        MUNGE.chmod(0o755)
        stack.callback(shutil.rmtree, MUNGE)
    daemon(stack, folder, [str(program("munged")), "--foreground"], user="munge", group="munge")
    until(lambda: listens(MUNGE / "munge.socket.2"))


def start_accounting(stack: ExitStack, found: Cluster, ports: dict[str, int]) -> None:
    """Start a database and Slurm's daemon for it, and make an account for this user."""
    folder, data = found.folder, found.folder / "database"
    data.mkdir()
    own = ["--no-defaults", f"--datadir={data}", f"--socket={folder}/database.socket"]
    own += ["--user=root", "--bind-address=127.0.0.1", f"--port={ports['database']}"]
    # Without users and passwords it needs no tables of its own.
    daemon(stack, folder, [str(program("mariadbd")), *own, "--skip-grant-tables"])
    until(lambda: listens(folder / "database.socket"), found, "the database")
    daemon(
        stack, folder, [str(program("slurmdbd")), "-D"], env={"SLURM_CONF": f"{folder}/slurm.conf"}
    )
    name = NAME.partition("=")[2].strip()
    until(lambda: name in answer("sacctmgr", "-i", "add", "cluster", name), found, "slurmdbd")
    found.ask("sacctmgr", "-i", "add", "account", ACCOUNT, f"cluster={name}")
    found.ask("sacctmgr", "-i", "add", "user", "root", f"account={ACCOUNT}", f"cluster={name}")


def daemon(stack: ExitStack, folder: Path, command: list[str], **how: Any) -> None:
    """Start a program that ends with the block."""
    with (folder / f"{Path(command[0]).name}.out").open("w") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, start_new_session=True, **how
        )
    stack.callback(end, process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process, by force if it does not within the time."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def answer(*words: str) -> str:
    """What a command prints, whatever its exit status."""
    return subprocess.run(words, capture_output=True, text=True).stdout


def until(ready: Callable[[], Any], found: Cluster | None = None, what: str = "Slurm") -> Any:
    """Wait for something and return it; where it does not come, the daemons' logs say more."""
    stop = time.monotonic() + PATIENCE
    while not (value := ready()):
        logs = found.tail() if found else ""
        assert time.monotonic() < stop, f"{what}: not within {PATIENCE} s\n{logs}"
        time.sleep(0.2)
    return value
