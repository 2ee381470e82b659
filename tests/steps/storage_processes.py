"""Transfers as processes of their own, which can be killed, and what they leave."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from servers import S3Server

ROOT = Path(__file__).parents[2]
MIB = 1 << 20
PART = 5 * MIB
"""The smallest that S3 takes."""
WORKERS = 4
UNDER_WAY = WORKERS * (PART + 2 * MIB)
"""Bytes that may be under way when everything stops: parts that are not whole, and what sockets hold."""
SIZE = int(os.environ.get("BEEAR_STORAGE_TEST_MB", "64")) * MIB
"""Bytes of the large file; 1024 takes minutes."""

_CODE = r"""
import re
import sys
from pathlib import Path
import boto3
from components.storage import places, s3, s3_fetch, s3_upload
s3.PART = s3_fetch.PART = s3_upload.PART = int(sys.argv[1])
s3.WORKERS = int(sys.argv[2])
verb, one, other = sys.argv[3:]
boto3.client("s3")
def peak():  # not getrusage, which counts what the process was before it became this one
    return int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) // 1024
before = peak()
if verb == "upload":
    done = places.upload_dir(Path(one), other)
    print(done.sent, done.skipped)
else:
    places.fetch(one, Path(other))
print("memory", peak() - before)
"""


def begin(verb: str, one: object, other: object, server: S3Server, endpoint: str) -> subprocess.Popen[str]:
    """Begin ``upload FOLDER URI`` or ``fetch URI FOLDER`` through an endpoint."""
    environment = {**os.environ, **server.environment(), "AWS_ENDPOINT_URL": endpoint, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", _CODE, str(PART), str(WORKERS), verb, str(one), str(other)]
    return subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def ended(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Wait for the end: (exit code, both outputs)."""
    out, err = process.communicate(timeout=300)
    return process.returncode, out + err


def memory(process: subprocess.Popen[str]) -> int:
    """Wait for a transfer that must end well: MiB that it took at most, beside the libraries."""
    code, text = ended(process)
    assert code == 0, text
    return int(text.rpartition("memory ")[2].split()[0])


def counts(process: subprocess.Popen[str]) -> tuple[int, int]:
    """Wait for an upload that must end well: bytes that it (sent, skipped)."""
    code, text = ended(process)
    assert code == 0, text
    sent, skipped = text.splitlines()[0].split()
    return int(sent), int(skipped)
