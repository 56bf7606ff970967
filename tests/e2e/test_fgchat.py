"""fgchat as a user drives it: through a terminal, and through a pipe."""
import os
import pty
import re
import select
import signal
import subprocess
import time

from daemon import program, run

GREEDY = ("--temperature", "0", "--system", "You are a helpful assistant.")
SPEED = re.compile(r"--- \[\d+ tokens, [\d.]+toks/s\]")


def test_rounds_reset_and_multi_line_over_a_pipe(daemon):
    script = "What is the capital of France?\nAnd of Italy?\n/r 2\n/m\nWhat is\ntwo plus two?\n.\n/nonsense\n/q\n"
    ended = run("fgchat", "--connect", daemon.grpc, *GREEDY, "--max-tokens", "40", stdin=script)
    assert ended.returncode == 0, ended.stderr
    assert "Paris" in ended.stdout
    assert len(SPEED.findall(ended.stdout)) == 3
    prompts = re.findall(r"(\d+)> ", ended.stdout)
    assert prompts[:4] == ["1", "2", "3", "2"], ended.stdout
    assert "/nonsense" in ended.stdout + ended.stderr


def test_the_end_of_input_ends_it(daemon):
    ended = run("fgchat", "--connect", daemon.grpc, stdin="")
    assert ended.returncode == 0


def test_it_loads_a_model_inside_the_process():
    ended = run("fgchat", *GREEDY, "--max-tokens", "20", stdin="What is the capital of France?\n/q\n")
    assert ended.returncode == 0, ended.stderr
    assert "Paris" in ended.stdout


def test_an_absent_daemon_is_one_line():
    ended = run("fgchat", "--connect", "127.0.0.1:1", stdin="hello\n")
    assert ended.returncode == 1 and "127.0.0.1:1" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1, ended.stderr


class Terminal:
    """A program under a pseudo-terminal."""

    def __init__(self, *argv):
        self.parent, child = pty.openpty()
        self.process = subprocess.Popen(argv, stdin=child, stdout=child, stderr=child, start_new_session=True,
                                        preexec_fn=lambda: __import__("fcntl").ioctl(0, __import__("termios").TIOCSCTTY, 0),
                                        env={**os.environ, "TERM": "xterm"})
        os.close(child)
        self.seen = ""

    def expect(self, pattern, timeout=30):
        deadline = time.monotonic() + timeout
        while not re.search(pattern, self.seen):
            assert time.monotonic() < deadline, self.seen
            if select.select([self.parent], [], [], 0.1)[0]:
                self.seen += os.read(self.parent, 65536).decode(errors="replace")

    def send(self, text):
        os.write(self.parent, text.encode())

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.parent)


def test_ctrl_c_stops_the_answer_not_the_program(daemon):
    terminal = Terminal(program("fgchat"), "--connect", daemon.grpc, "--max-tokens", "3000", "--system", "Write very long stories.")
    try:
        terminal.expect("1> ")
        terminal.send("Write a story of a thousand words about the sea.\n")
        terminal.expect(r"sea\.\s+\S+ \S+ ")  # the answer has begun
        terminal.send("\x03")
        terminal.expect(r"--- \[")
        terminal.expect("2> ")
        assert int(re.search(r"--- \[(\d+) tokens", terminal.seen).group(1)) < 3000
        assert terminal.process.poll() is None
        terminal.send("/q\n")
        assert terminal.process.wait(10) == 0
    finally:
        terminal.close()
