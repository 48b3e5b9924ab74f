"""Measurements in a process of their own: its memory is nobody else's."""

import json
import re
import subprocess
import sys
from pathlib import Path


def peak_rss() -> int:
    """Peak of this process's resident memory in bytes."""
    # Not ru_maxrss: that of a child begins with its parent's.
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def in_a_process(program: str, *arguments) -> list:
    """Run Python source in a new process; give the list that it prints last, as JSON."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout.splitlines()[-1])
