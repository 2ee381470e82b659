"""A folder to S3 and back, beside plain boto3 file by file, whole, again, and after a kill half-way.

``python -m benchmarks.transfer [--mib N] [--out FILE] [--endpoint URL]`` starts SeaweedFS, or takes the store that answers
at the endpoint to AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. It prints a table and writes JSON with the machine's facts.
Every transfer is a process of its own, so that its peak of memory is its own, and its bytes are counted on their way by a
proxy. Ours reads every byte once more than plain boto3 does, for SHA-256.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from beear_core.records import Environment
from tools.servers.program import free_port
from tools.servers.seaweedfs import GRPC, INNER, Keys, SeaweedFS, s3_client

# the proxy is that of the tests
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

MIB, SMALL = 1 << 20, 10
BUCKET = "benchmark"
_CODE = """
import json, os, resource, sys, time
from pathlib import Path
which, verb, folder, prefix = sys.argv[1:]
folder = Path(folder)
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
import boto3
from components.storage import places
client = boto3.client("s3")
before, began = peak(), time.perf_counter()
if which == "ours":
    uri = f"s3://benchmark/{prefix}"
    places.upload_dir(folder, uri) if verb == "upload" else places.fetch(uri, folder)
elif verb == "upload":
    for path in sorted(folder.iterdir()):
        client.upload_file(str(path), "benchmark", f"{prefix}/{path.name}")
else:
    folder.mkdir(exist_ok=True)
    for found in client.list_objects_v2(Bucket="benchmark", Prefix=f"{prefix}/")["Contents"]:
        client.download_file("benchmark", found["Key"], str(folder / Path(found["Key"]).name))
print(json.dumps({"seconds": time.perf_counter() - began, "peak_mib": peak(), "memory_mib": peak() - before}))
"""


def main() -> None:
    """Measure every transfer, print the table and write the JSON."""
    from counting_proxy import counting_proxy

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mib", type=int, default=1024)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/transfer.json"))
    parser.add_argument("--endpoint", help="of a store that runs; without, SeaweedFS is started")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, store(given.endpoint, Path(name)) as endpoint:
        folder = make_folder(Path(name) / "model", given.mib)
        with counting_proxy(endpoint) as proxy:
            os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
            rows = [row for which in ("plain", "ours") for row in measure(which, folder, proxy, given.mib)]
    table = Table("", "by", "time", "MiB on the way", "memory")
    for row in sorted(rows, key=lambda row: [r["what"] for r in rows].index(row["what"])):
        cells = (f"{row['seconds']:.1f} s", f"{row['mib']:.0f}", f"{row['memory_mib']:.0f} MiB")
        table.add_row(row["what"], row["by"], *cells)
    Console().print(table)
    result = {"mib": given.mib, "rows": rows, "environment": asdict(Environment.here(()))}
    given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


@contextmanager
def store(endpoint: str | None, folder: Path) -> Iterator[str]:
    """Start SeaweedFS unless an endpoint is given, and make the bucket; its endpoint, with its keys in the environment."""
    if endpoint:
        keys = Keys(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
        s3_client(endpoint, keys).create_bucket(Bucket=BUCKET)
        yield endpoint
        return
    ports, keys = [free_port(GRPC) for _ in range(1 + INNER)], Keys("benchmark", "a-secret")
    inner, reader = tuple(ports[1:]), Keys("reader", "another-secret")
    weed = SeaweedFS(folder=folder / "weed", port=ports[0], inner=inner, writer=keys, reader=reader, bucket=BUCKET)
    try:
        weed.start()
        os.environ |= {"AWS_ACCESS_KEY_ID": keys.key, "AWS_SECRET_ACCESS_KEY": keys.secret}
        os.environ["AWS_DEFAULT_REGION"] = "us-east-1"
        yield weed.endpoint
    finally:
        weed.kill()


def make_folder(folder: Path, mib: int) -> Path:
    """Write two large files of random bytes, of ``mib`` MiB together, and some small ones."""
    folder.mkdir()
    for n in range(2):
        with (folder / f"model-{n}.safetensors").open("wb") as file:
            for _ in range(mib // 2):
                file.write(os.urandom(MIB))
    for n in range(SMALL):
        (folder / f"{n}.json").write_bytes(os.urandom(1000))
    return folder


def measure(which: str, folder: Path, proxy: Any, mib: int) -> list[dict[str, Any]]:
    """Measure one implementation: seconds, MiB on the way and MiB of memory for each transfer."""
    dest, rows = folder.parent / "dest", []

    def row(what: str, verb: str, place: Path, prefix: str, *, killed: bool = False) -> None:
        if killed:
            proxy.reset()
            proxy.hold_up, proxy.hold_down = ((mib // 2) * MIB, 1 << 60)[:: 1 if verb == "upload" else -1]
            process = begin(which, verb, place, prefix)
            proxy.wait_until_held()
            process.kill()
            process.wait()
        proxy.reset()
        out, _ = begin(which, verb, place, prefix).communicate()
        rows.append({"what": what, "by": which, **json.loads(out), "mib": (proxy.up + proxy.down) / MIB})

    row("upload", "upload", folder, which)
    row("upload again", "upload", folder, which)
    row("upload, killed half-way", "upload", folder, f"{which}-killed", killed=True)
    row("download", "download", dest, which)
    shutil.rmtree(dest)
    row("download, killed half-way", "download", dest, which, killed=True)
    shutil.rmtree(dest)
    return rows


def begin(which: str, verb: str, folder: Path, prefix: str) -> subprocess.Popen[bytes]:
    """Begin a transfer as a process."""
    command = [sys.executable, "-c", _CODE, which, verb, str(folder), prefix]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
