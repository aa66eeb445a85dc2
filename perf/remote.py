#!/usr/bin/env python3
"""What loading over the network costs the client, beside curl and Run:ai's streamer.

    perf/remote.py http      plain HTTP and TLS from nginx, against curl
    perf/remote.py s3        S3, against Run:ai Model Streamer 0.17
    perf/remote.py verify    what checking a checksum adds
    perf/remote.py memory    peak memory for objects of growing size
    perf/remote.py cache     what the local file cache adds to a first load, and what a second one takes

Server and clients share one core, and clients run in turns (A B C A B C ...). What is measured is
the client's own CPU time, by wait4(2); seconds are shown but are the pair's, not the client's. With
--apart the server has the first core to itself: where two cores are threads of one, that alone
makes every client's CPU time longer. Every client's bytes are checked once. Needs: cargo build --release, nginx and openssl
(tests/servers.sh), curl; for s3 it installs the streamer by pip into target/perf, once. Only
Python's own library is used.

For cache nobody is pinned, and what is compared is the load's own time, as ringload tells it. The server
is held to --rate-mb MB/s (default: half of what the disk writes, which is measured first). A second
load is compared with one of the plain file, which is the cache's own data file: the same blocks of
the same disk, out of the page cache in both cases.

For s3 and verify nginx plays the store: it takes any signature, and costs its clients nothing that
a store would not. (That real ones take our signatures is what tests/s3.rs checks; s3s-fs, which
checks them too, sums up the whole object for every range of it and is of no use here.)
"""

import argparse
import base64
import json
import os
import pathlib
import shutil
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib

from common import KEEP, RINGLOAD, ROOT, checkpoint, forget, verdict

CORES = sorted(os.sched_getaffinity(0))
SERVER_CORE = CLIENT_CORE = CORES[-1]
ERRORS = tempfile.TemporaryFile()


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("what", choices=["http", "s3", "verify", "memory", "cache"])
    arguments.add_argument("--gib", type=float, default=2.0, help="size of the object (default 2)")
    arguments.add_argument("--runs", type=int, default=5, help="turns (default 5)")
    arguments.add_argument("--connections", type=int, default=16, help="connections (default 16)")
    arguments.add_argument("--apart", action="store_true", help="give the server a core of its own")
    arguments.add_argument("--rate-mb", type=float, help="MB/s of the server (cache)")
    options = arguments.parse_args()
    if options.apart:
        global SERVER_CORE
        SERVER_CORE = CORES[0]
    if not RINGLOAD.exists():
        sys.exit("build it first: cargo build --release")
    KEEP.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEEP) as directory:
        {"http": http, "s3": s3, "verify": verify, "memory": memory, "cache": cache}[options.what](options, pathlib.Path(directory))


# ---------------------------------------------------------------- scenarios


def http(options, directory):
    path = checkpoint(options.gib)
    size = path.stat().st_size
    server, plain, tls, certificate = nginx(directory, path.parent)
    trusted = {**os.environ, "SSL_CERT_FILE": str(certificate)}
    rows = []
    with server:
        for scheme, base, environment in [("http", plain, None), ("https", tls, trusted)]:
            url = f"{base}/{path.name}"
            check_bytes(url, path, environment)
            curl = ["curl", "--silent", "--fail", "--cacert", str(certificate)]
            parts = curl + ["--parallel", "--parallel-max", str(options.connections)]
            for first, last in ranges(size, options.connections):
                parts += ["--range", f"{first}-{last}", "--output", "/dev/null", url, "--next"] + curl[1:]
            parts = parts[: -len(curl)]  # the last --next has nothing behind it
            clients = {
                "ringload": load(url, options.connections),
                "curl": curl + ["--output", "/dev/null", url],
                f"curl, {options.connections} ranges": parts,
            }
            figures = in_turns(clients, options.runs, environment)
            report(scheme, figures, size)
            curls = [cpu(figures, name, size) for name in clients if name != "ringload"]
            own = cpu(figures, "ringload", size)
            limit, share = (0.33, 0.75) if scheme == "http" else (0.68, 1.0)
            rows.append((f"{scheme}: CPU-s/GB", own, limit))
            rows.append((f"{scheme}: of the cheaper curl", own / min(curls), share))
    verdict(rows)


def s3(options, directory):
    path = checkpoint(options.gib)
    size = path.stat().st_size
    streamer = runai()
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "perf",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0",
        "RUNAI_STREAMER_CONCURRENCY": str(options.connections),
    }
    server, endpoint, *_ = nginx(directory, bucket(directory, path))
    environment |= {"AWS_ENDPOINT_URL": endpoint, "RUNAI_STREAMER_S3_ENDPOINT": endpoint}
    url = f"s3://bucket/{path.name}"
    with server:
        check_bytes(url, path, environment)
        clients = {
            "ringload": load(url, options.connections),
            "Run:ai 0.17": [str(streamer), str(ROOT / "perf/runai_s3.py"), url, str(size)],
        }
        figures = in_turns(clients, options.runs, environment)
    report("s3", figures, size)
    own, theirs = cpu(figures, "ringload", size), cpu(figures, "Run:ai 0.17", size)
    verdict([("s3: CPU-s/GB", own, 0.40), ("s3: of Run:ai's", own / theirs, 0.25)])


def verify(options, directory):
    path = checkpoint(options.gib)
    size = path.stat().st_size
    # nginx plays an S3 server that asks for no signature and keeps the object's CRC-32.
    headers = f"add_header x-amz-checksum-crc32 {crc32(path)}; add_header x-amz-checksum-type FULL_OBJECT;"
    server, plain, tls, certificate = nginx(directory, bucket(directory, path), headers)
    rows = []
    with server:
        for scheme, endpoint in [("http", plain), ("https", tls)]:
            environment = {**os.environ, "AWS_ENDPOINT_URL": endpoint, "RUNAI_STREAMER_S3_UNSIGNED": "1"}
            environment["AWS_CA_BUNDLE"] = str(certificate)
            command = load(f"s3://bucket/{path.name}", options.connections)
            checked = subprocess.run(command + ["--verify"], env=environment, capture_output=True, check=True)
            assert json.loads(checked.stdout)["verified_objects"] == 1
            clients = {"plain": command, "--verify": command + ["--verify"]}
            figures = in_turns(clients, options.runs, environment)
            report(f"verify, {scheme}", figures, size)
            added = cpu(figures, "--verify", size) - cpu(figures, "plain", size)
            rows.append((f"{scheme}: checksumming: CPU-s/GB", added, 0.06))
    verdict(rows)


def crc32(path):
    """The CRC-32 of the file, by zlib, as S3 writes it."""
    crc = 0
    with open(path, "rb") as file:
        while piece := file.read(8 << 20):
            crc = zlib.crc32(piece, crc)
    return base64.b64encode(struct.pack(">I", crc)).decode()


def memory(options, directory):
    rows = []
    for gib in [options.gib / 4, options.gib]:
        path = checkpoint(gib)
        server, plain, *_ = nginx(directory, path.parent)
        with server:
            for limit in [64, 128, 256]:
                command = load(f"{plain}/{path.name}", options.connections, f"{limit}MiB")
                run = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
                allowed = limit + 32 + options.connections * 64 / 1024
                rows.append((f"{gib:g} GiB under {limit} MiB: MiB", run["peak_rss_bytes"] / 2**20, allowed))
    verdict(rows)


def cache(options, directory):
    path = checkpoint(options.gib)
    size = path.stat().st_size
    disk = disk_rate(directory)
    rate = options.rate_mb * 1e6 if options.rate_mb else disk / 2
    print(f"the disk writes {disk / 1e9:.2f} GB/s, the server sends {rate / 1e9:.2f} GB/s")
    per_connection = f"limit_rate {int(rate / options.connections)};"
    server, plain, *_ = nginx(directory, path.parent, per_connection)
    url, kept = f"{plain}/{path.name}", directory / "cache"
    caching = ["--cache-dir", str(kept)]
    rows = []
    with server:
        for what, limit in [("resident", []), ("256 MiB", ["--memory-limit", "256MiB"])]:
            base = [str(RINGLOAD), "load", "--json", "--connections", str(options.connections)] + limit
            clients = {"without": base + [url], "with": base + caching + [url]}
            first = timed(clients, options.runs, lambda: shutil.rmtree(kept, ignore_errors=True))
            told = report_loads(f"first, {what}", first)
            rows.append((f"first, {what}: with / without", told["with"] / told["without"], 1.10))
            left_out = statistics.median(run["cache_left_out_bytes"] for run in first["with"])
            print(f"left out, as they came too fast: {left_out / size:.1%}")
            if limit:
                peak = max(run["peak_rss_bytes"] for run in first["with"]) / 2**20
                rows.append((f"first, {what}: peak MiB", peak, 256 + 32 + options.connections * 64 / 1024))
        subprocess.run([str(RINGLOAD), "fetch", "--json", url] + caching, check=True, capture_output=True)
        [data] = kept.glob("*/*/data.safetensors")
        if data.stat().st_size != size or crc32(data) != crc32(path):
            sys.exit(f"{data} holds other bytes than {path}")
        for what, limit in [("resident", []), ("256 MiB", ["--memory-limit", "256MiB"])]:
            base = [str(RINGLOAD), "load", "--json", "--drop"] + limit
            clients = {"plain file": base + [str(data)], "cache": base + caching + [url]}
            second = timed(clients, options.runs, lambda: forget(data))
            told = report_loads(f"second, {what}", second)
            for run in second["cache"] + second["plain file"]:
                assert run["read_bytes"].get("direct", 0) > 0.99 * run["bytes"], run
            drivers = {name: {run["driver"] for run in loads} for name, loads in second.items()}
            assert drivers["cache"] == drivers["plain file"], drivers
            rows.append((f"second, {what}: of the plain file", told["cache"] / told["plain file"], 1.05))
    verdict(rows)


def timed(clients, runs, prepare):
    """Runs all clients in turns, each after `prepare`; gives the reports of all turns but the first."""
    reports = {name: [] for name in clients}
    for turn in range(runs + 1):
        for name, command in clients.items():
            prepare()
            told = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
            if turn > 0:
                reports[name].append(told)
    return reports


def report_loads(title, reports):
    """Prints the seconds and CPU seconds of loads; gives the median seconds."""
    print(f"\n{title:<22}{'seconds':>10}{'spread':>16}{'CPU-s/GB':>10}{'peak MiB':>10}")
    medians = {}
    for name, runs in reports.items():
        seconds = sorted(run["seconds"] for run in runs)
        medians[name] = statistics.median(seconds)
        costs = statistics.median(run["cpu_seconds"] / (run["bytes"] / 1e9) for run in runs)
        peak = max(run["peak_rss_bytes"] for run in runs) / 2**20
        spread = f"{seconds[0]:.2f}-{seconds[-1]:.2f}"
        print(f"{name:<22}{medians[name]:>10.2f}{spread:>16}{costs:>10.3f}{peak:>10.0f}")
    return medians


def disk_rate(directory):
    """What the disk writes directly, in bytes a second: the slowest of three GiB."""
    target, rates = directory / "rate", []
    for _ in range(3):
        began = time.monotonic()
        command = ["dd", "if=/dev/zero", f"of={target}", "bs=8M", "count=128", "oflag=direct", "conv=fsync"]
        subprocess.run(command, check=True, capture_output=True)
        rates.append(2**30 / (time.monotonic() - began))
        target.unlink()
    return min(rates)


# ---------------------------------------------------------------- clients


def load(url, connections, limit="128MiB"):
    command = [str(RINGLOAD), "load", "--json", "--memory-limit", limit]
    return command + ["--connections", str(connections), url]


def in_turns(clients, runs, environment=None):
    """Runs all clients in turns; gives each one's (cpu seconds, seconds, peak KiB) of all turns."""
    figures = {name: [] for name in clients}
    for turn in range(runs + 1):
        for name, command in clients.items():
            taken = run(command, environment)
            if turn > 0:  # the first turn warms caches
                figures[name].append(taken)
    return figures


def run(command, environment):
    began = time.monotonic()
    child = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=ERRORS,
        preexec_fn=lambda: os.sched_setaffinity(0, {CLIENT_CORE}),
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        ERRORS.seek(0)
        sys.exit(f"{command[0]} failed with {child.returncode}: {ERRORS.read().decode(errors='replace')}")
    ERRORS.truncate(0)
    return usage.ru_utime + usage.ru_stime, time.monotonic() - began, usage.ru_maxrss


def check_bytes(url, path, environment):
    """Every tensor's digest, loaded from `url`, is that of the local file."""
    digests = lambda where, env: subprocess.run(
        [str(RINGLOAD), "load", "--drop", "--digest", where], env=env, check=True, capture_output=True
    ).stdout
    if digests(url, environment) != digests(str(path), None):
        sys.exit(f"{url} gave other bytes than {path} holds")


def ranges(size, count):
    step = -(-size // count)
    return [(first, min(first + step, size) - 1) for first in range(0, size, step)]


# ---------------------------------------------------------------- figures


def cpu(figures, name, size):
    return statistics.median(taken[0] for taken in figures[name]) / (size / 1e9)


def report(title, figures, size):
    print(f"\n{title:<22}{'CPU-s/GB':>10}{'spread':>16}{'seconds':>10}{'peak MiB':>10}")
    for name, taken in figures.items():
        costs = sorted(one[0] / (size / 1e9) for one in taken)
        seconds = statistics.median(one[1] for one in taken)
        peak = max(one[2] for one in taken) / 1024
        spread = f"{costs[0]:.3f}-{costs[-1]:.3f}"
        print(f"{name:<22}{statistics.median(costs):>10.3f}{spread:>16}{seconds:>10.2f}{peak:>10.0f}")


# ---------------------------------------------------------------- what is needed


class Server:
    """A process on the server's core, until the block ends."""

    def __init__(self, command, port, **more):
        pin = lambda: os.sched_setaffinity(0, {SERVER_CORE})
        self.child = subprocess.Popen(command, preexec_fn=pin, start_new_session=True, **more)
        for _ in range(500):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        self.__exit__()
        sys.exit(f"{command[0]} does not listen")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def nginx(directory, root, headers=""):
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if not program:
        sys.exit("nginx is not installed; tests/servers.sh does that")
    key, certificate = directory / "key.pem", directory / "certificate.pem"
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
        + ["-keyout", key, "-out", certificate, "-subj", "/CN=localhost", "-addext", names]
        + ["-addext", "basicConstraints=critical,CA:FALSE"],
        check=True,
        capture_output=True,
    )
    plain, tls = free_port(), free_port()
    temporary = "".join(f"{kind}_temp_path {directory}/{kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"daemon off; master_process off; pid {directory}/pid; error_log {directory}/error.log;"
        f"events {{ worker_connections 1024; }}"
        f"http {{ access_log off; sendfile on; keepalive_requests 1000000; {temporary}"
        f"server {{ listen 127.0.0.1:{plain}; listen 127.0.0.1:{tls} ssl; root {root}; {headers}"
        f"ssl_certificate {certificate}; ssl_certificate_key {key}; }} }}"
    )
    server = Server([program, "-e", f"{directory}/error.log", "-c", str(configuration)], plain)
    return server, f"http://127.0.0.1:{plain}", f"https://localhost:{tls}", certificate


def bucket(directory, path):
    """A directory of buckets with one bucket, called bucket, that holds the object."""
    root = directory / "root"
    (root / "bucket").mkdir(parents=True)
    os.link(path, root / "bucket" / path.name)
    return root


def runai():
    """The Python of an environment with Run:ai's streamer; its own library is driven, without torch."""
    environment = KEEP / "runai"
    python = environment / "bin" / "python"
    if not (environment / "done").exists():
        subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run(pip + ["--no-deps", "runai-model-streamer==0.17.0", "runai-model-streamer-s3==0.17.1"], check=True)
        subprocess.run(pip + ["boto3", "humanize", "numpy"], check=True)
        (environment / "done").touch()
    return python


if __name__ == "__main__":
    main()
