#!/usr/bin/env bash
# One file of /proc is hidden, and all metrics of the process are gone.
#
# Library: prometheus-client 0.26.0.
# Documentation: "Process Collector" says that CPU, RAM, file descriptors and start time of the process are exported on Linux.
#   systemd's ProcSubset=pid, advised for services, hides what in /proc is not about processes. One would think that metrics of
#   a process stay, or that only its start time goes.
# Surprise: the boot time stands in /proc/stat, for the start time alone. Where that file is hidden the collector returns
#   nothing at all, not even memory and file descriptors, which it could read. There is no warning, and the scrape is good.
# The refresher: its unit for systemd leaves /proc/stat in sight (no ProcSubset=pid), and says why.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet prometheus-client==0.26.0

cat > "$work/collect.py" <<'PY'
import os
import sys
from importlib.metadata import version

from prometheus_client import CollectorRegistry, ProcessCollector

print(f"versions: prometheus-client {version('prometheus-client')}")


def collected(proc):
    """How many metrics there are, with this folder as /proc."""
    return len(list(ProcessCollector(proc=proc, pid=os.getpid, registry=CollectorRegistry()).collect()))


# What ProcSubset=pid leaves: the folders of processes.
os.symlink(f"/proc/{os.getpid()}", f"{sys.argv[1]}/{os.getpid()}")
seen = collected("/proc"), collected(sys.argv[1])
print(f"all of /proc: expected 6, seen {seen[0]}")
print(f"only processes: expected 5, seen {seen[1]}")
sys.exit(seen != (6, 0) and 'changed: see "seen"')
PY
mkdir "$work/proc"
"$work/venv/bin/python" "$work/collect.py" "$work/proc"
echo 'as found'
