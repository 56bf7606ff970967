"""The servers that serving.py compares: starting, watching and ending them.

A Server owns one process and its children, in a process group of their own: Ctrl-C reaches serving.py alone, which then
ends all it started. Ready is when /health answers 200.
"""
import glob
import os
import signal
import socket
import subprocess
import tempfile
import time

GRACE_S = 20

REST_SHARE = 0.05  # of a core: what a server at rest takes less than


def wait_for_rest(servers, look_s=0.5, limit_s=15):
    """Until none of the servers computes any more: some spin for seconds after their last answer (vLLM 0.32 for 3 s), which
    would slow the next one. False: one of them still does after limit_s."""
    end = time.perf_counter() + limit_s
    while time.perf_counter() < end:
        before = [server.cpu_seconds() for server in servers]
        time.sleep(look_s)
        if all(server.cpu_seconds() - b < REST_SHARE * look_s for server, b in zip(servers, before)):
            return True
    return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_healthy(port):
    """Whether GET /health answers 200, asked in a way that costs the server next to nothing."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(f"GET /health HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            return connection.recv(64).split(b" ")[1:2] == [b"200"]
    except OSError:
        return False


def group_members(group):
    """Process ids of a process group, without those that have ended and wait for their parent."""
    members = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    state, _, of_group = file.read().rpartition(")")[2].split()[:3]
                if int(of_group) == group and state != "Z":
                    members.append(int(name))
            except (OSError, ValueError):
                pass
    return members


class Server:
    """A process that serves HTTP on a free port. PORT in its command is that port. Ended by stop() or at exit."""

    def __init__(self, name, command, timeout_s=120):
        self.name, self.timeout_s = name, timeout_s
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = tempfile.TemporaryFile("w+")
        self.began = time.perf_counter()
        self.process = subprocess.Popen([part.replace("PORT", str(self.port)) for part in command], stdout=self.log,
                                        stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True)
        self.ready_s = None

    def wait_ready(self):
        """Seconds from the start of the process to the first healthy answer. RuntimeError with its log if none comes."""
        while time.perf_counter() - self.began < self.timeout_s:
            if is_healthy(self.port):
                self.ready_s = time.perf_counter() - self.began
                return self.ready_s
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.name} ended with {self.process.returncode} before it was ready:\n{self.tail()}")
            time.sleep(0.002)
        raise RuntimeError(f"{self.name} was not ready after {self.timeout_s} s:\n{self.tail()}")

    def tail(self):
        self.log.flush()
        self.log.seek(0)
        return self.log.read()[-2000:]

    def members(self):
        return group_members(self.process.pid)

    def cpu_seconds(self):
        """Processor time of the group's living threads, to the nanosecond."""
        total = 0
        for pid in self.members():
            for path in glob.glob(f"/proc/{pid}/task/*/schedstat"):
                try:
                    with open(path) as file:
                        total += int(file.read().split()[0])
                except (OSError, IndexError):
                    pass
        return total * 1e-9

    def resident_mb(self):
        """(all resident memory, the part that is no file's) of the group; what processes share counts once."""
        total, anonymous = 0, 0
        for pid in self.members():
            try:
                with open(f"/proc/{pid}/smaps_rollup") as file:
                    for line in file:
                        word, *rest = line.split()
                        if word == "Pss:":
                            total += int(rest[0])
                        elif word == "Pss_Anon:":
                            anonymous += int(rest[0])
            except OSError:
                pass
        return total / 1024, anonymous / 1024

    def stop(self):
        """Ends the group: asked first, killed after a while."""
        if self.process.poll() is None:
            self._signal(signal.SIGTERM)
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            pass
        self._signal(signal.SIGKILL)  # what the first process left behind
        self.process.wait()
        self.log.close()

    def _signal(self, number):
        try:
            os.killpg(self.process.pid, number)
        except ProcessLookupError:
            pass

    def __enter__(self):
        return self

    def __exit__(self, *unused):
        self.stop()
