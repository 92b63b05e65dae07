"""Objects in a bucket of a real server: whole or not at all, conditions that hold, errors that a person understands."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import obstore
import pytest

from storage.errors import InputError, IntegrityError, ObjectStoreError, StaleWriteError, TakenOverError
from storage.places import locks
from storage.places.bucket import ObjectPath, location
from storage.places.credentials import refuse_credentials
from storage.places.locks import Lease
from storage.places.publish import claim_directory, publish, sha256_of, write_json_atomically
from storage.places.segmented_log import SEGMENT_BYTES, SegmentedLog
from tests.s3_server import BUCKET, OWNER, READER, S3Server, use
from tiling.ledger import Entry, Ledger


def test_addresses() -> None:
    path = ObjectPath.parse("s3://maps/deep//run/")
    assert (path.bucket, path.key, path.name, str(path)) == ("maps", "deep/run", "run", "s3://maps/deep/run")
    assert str(path / "ledger" / "a.jsonl") == "s3://maps/deep/run/ledger/a.jsonl"
    assert (path / "a.b.tif").suffix == ".tif"
    assert ObjectPath.parse("s3://maps").name == "maps"
    assert location("s3://maps/a") == ObjectPath("maps", "a")
    assert location("maps/a") == Path("maps/a")
    for wrong in ("s3://", "s3:///a", "s3://maps/../other", "s3://maps/a?versionId=3", "gs://maps/a"):
        with pytest.raises(InputError):
            ObjectPath.parse(wrong)


@pytest.mark.parametrize(
    "address",
    [
        "s3://key:hush@maps/a.tif",
        "https://user:hush@example.org/a.tif",
        "https://hush@example.org/a.tif",
        "/vsicurl/https://user:hush@example.org/a.tif",
        "https://maps.s3.amazonaws.com/a.tif?X-Amz-Credential=x&X-Amz-Signature=hush",
        "https://example.org/a.tif?AWSAccessKeyId=x&Signature=hush&Expires=1",
        "https://account.blob.core.windows.net/maps/a.tif?sv=2024&sig=hush",
        "https://example.org/a.tif?access_token=hush",
        "https://example.org/a.tif?size=3&api_key=hush",
        "/vsis3/maps/a.tif?x-amz-security-token=hush",
    ],
)
def test_an_address_with_a_secret_is_refused_without_repeating_it(address: str) -> None:
    with pytest.raises(InputError, match="password, a token or a signature") as refused:
        refuse_credentials(address)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize("address", ["s3://maps/a@b:c.tif", "https://example.org:8080/a.tif?size=3", "maps/a@b?key=1"])
def test_other_addresses_are_not(address: str) -> None:
    assert refuse_credentials(address) == address


def test_a_path_travels_without_credentials(bucket: ObjectPath) -> None:
    bucket.write(b"1")
    travelled = pickle.dumps(bucket)
    assert not any(secret.encode() in travelled for secret in OWNER)
    assert pickle.loads(travelled).read_bytes() == b"1"


def test_conditions_hold(bucket: ObjectPath) -> None:
    path = bucket / "a"
    first = path.write(b"1", only_new=True)
    with pytest.raises(StaleWriteError):
        path.write(b"2", only_new=True)
    second = path.write(b"3", replacing=first)
    with pytest.raises(StaleWriteError):
        path.write(b"4", replacing=first)
    with pytest.raises(StaleWriteError):
        (bucket / "missing").write(b"4", replacing=first)
    assert path.read() == (b"3", second)


def test_a_write_whose_answer_got_lost_is_known_again(bucket: ObjectPath) -> None:
    tag = (bucket / "a").write(b"1", only_new=True)
    assert (bucket / "a").write(b"1", only_new=True) == tag, "the client asked twice, the first one has succeeded"


def test_listing(bucket: ObjectPath) -> None:
    for name in ("a.jsonl", "b.json", "deep/c.jsonl"):
        (bucket / name).write(name.encode())
    assert [path.name for path in bucket.iterdir()] == ["a.jsonl", "b.json", "deep"]
    assert [str(path.relative_to(bucket)) for path, _ in bucket.walk()] == ["a.jsonl", "b.json", "deep/c.jsonl"]
    assert not (bucket / "deep").exists()
    with pytest.raises(FileNotFoundError):
        (bucket / "deep").stat()


@pytest.mark.parametrize("size", [10, 17_000_000], ids=["one request", "in parts"])
def test_published_whole_and_drafts_are_gone(
    bucket: ObjectPath, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    path, content = bucket / "a.bin", os.urandom(size)
    with publish(path, verify=lambda draft: None) as draft:
        draft.write_bytes(content)
        assert not path.exists()
    assert bytes(obstore.get(s3_server.store(), path.key).bytes()) == content
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["writing", "verifying"])
def test_a_failure_leaves_what_was_there(bucket: ObjectPath, where: str) -> None:
    path = bucket / "a.txt"
    path.write(b"old")

    def verify(draft: Path) -> None:
        raise OSError("scripted")

    with pytest.raises(OSError, match="scripted"), publish(path, verify=verify) as draft:
        draft.write_text("new")
        if where == "writing":
            raise OSError("scripted")
    assert path.read_bytes() == b"old"
    write_json_atomically(path, {"a": 1})
    assert json.loads(path.read_text()) == {"a": 1}


def test_prefixes_that_can_be_claimed(bucket: ObjectPath) -> None:
    claim_directory(bucket)
    assert list(bucket.walk()) == [], "claiming leaves nothing behind"
    (bucket / "run.json").write(b"{}")
    (bucket / "report.html").write(b"")
    claim_directory(bucket)


def test_prefixes_that_cannot(bucket: ObjectPath, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    (bucket / "photos" / "cat.jpg").write(b"")
    with pytest.raises(InputError, match=r"not a run of this program.*cat\.jpg"):
        claim_directory(bucket / "photos")
    with pytest.raises(InputError, match="is an object"):
        claim_directory(bucket / "photos" / "cat.jpg")
    with pytest.raises(InputError, match="there is no bucket nowhere"):
        claim_directory(ObjectPath("nowhere", "run"))
    use(s3_server, monkeypatch, READER)
    with pytest.raises(InputError, match=r"cannot be written: .*access denied, the store answered 403"):
        claim_directory(bucket / "run")
    use(s3_server, monkeypatch, ("nobody", "no-secret"))
    with pytest.raises(InputError, match="access denied, the store answered 403") as refused:
        claim_directory(bucket / "run")
    assert "no-secret" not in str(refused.value)


class _Forgetful(http.server.BaseHTTPRequestHandler):
    """A store that takes every write and knows no conditions."""

    def do_GET(self) -> None:
        self._answer(b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")

    def do_HEAD(self) -> None:
        self.send_error(404)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"")

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(b"<DeleteResult></DeleteResult>")

    def _answer(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Forgetful) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        yield
        server.shutdown()


@pytest.mark.usefixtures("forgetful")
def test_a_store_that_ignores_conditions_is_refused() -> None:
    with pytest.raises(InputError, match="ignores If-None-Match or If-Match"):
        claim_directory(ObjectPath("maps", "run"))


def test_a_log_is_read_again_as_it_was_written(bucket: ObjectPath) -> None:
    log = SegmentedLog(bucket)
    lines = [json.dumps({"n": n, "pad": "x" * 5000}).encode() + b"\n" for n in range(40)]
    for line in lines:
        log.append(line)
    again = SegmentedLog(bucket)
    assert again.path.read_bytes() == log.path.read_bytes() == b"".join(lines)
    segments = [facts.size for _, facts in bucket.walk()]
    assert len(segments) == 4 and max(segments) <= SEGMENT_BYTES
    again.append(b"one more\n")
    assert SegmentedLog(bucket).path.read_bytes().endswith(b"\none more\n")


def test_a_ledger_in_a_bucket(bucket: ObjectPath) -> None:
    ledger = Ledger.kept_in(SegmentedLog(bucket))
    assert list(ledger.entries("done")) == []
    ledger.append([Entry(block="a", state="done", facts={"digest": "1"}), Entry(block="b", state="failed")])
    ledger.forget(["b"], reason="scripted")
    for reader in (ledger, Ledger.kept_in(SegmentedLog(bucket))):
        assert [reader.state(block) for block in "abc"] == ["done", "pending", "pending"]
        assert reader.entry("a").facts == {"digest": "1"}
        assert reader.unreadable_lines == 0
    ledger.remove()
    assert list(bucket.walk()) == [] and ledger.state("a") == "pending" and list(ledger.entries("done")) == []
    ledger.append([Entry(block="c", state="done")])
    assert Ledger.kept_in(SegmentedLog(bucket)).state("c") == "done"
    assert ledger.entry("c").state == "done" and [entry.block for entry in ledger.entries("done")] == ["c"]


@pytest.mark.parametrize("before", [0, 1], ids=["first line", "later line"])
def test_the_second_writer_of_a_log_is_found_out_and_changes_nothing(bucket: ObjectPath, before: int) -> None:
    for _ in range(before):
        SegmentedLog(bucket).append(b"before\n")
    sleeper, successor = SegmentedLog(bucket), SegmentedLog(bucket)
    successor.append(b"of the successor\n")
    with pytest.raises(TakenOverError):
        sleeper.append(b"of the sleeper\n")
    successor.append(b"more\n")
    assert SegmentedLog(bucket).path.read_bytes() == b"before\n" * before + b"of the successor\nmore\n"


def test_two_processes_never_work_in_one_prefix(bucket: ObjectPath) -> None:
    with (
        Lease(bucket),
        pytest.raises(InputError, match=f"another process \\({os.getpid()} on .* is at work"),
        Lease(bucket),
    ):
        pass
    assert list(bucket.walk()) == []
    with Lease(bucket):
        pass


_HOLD = """
import sys, time
from storage.places.locks import Lease
from storage.places.bucket import ObjectPath
with Lease(ObjectPath.parse(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_of_a_killed_process_of_this_machine_is_taken_over_at_once(bucket: ObjectPath) -> None:
    with subprocess.Popen([sys.executable, "-c", _HOLD, str(bucket)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        with pytest.raises(InputError, match="is at work"), Lease(bucket):
            pass
        holder.send_signal(signal.SIGKILL)
    waited: list[str] = []
    with Lease(bucket, on_wait=waited.append):
        pass
    assert waited == []


def _locked_elsewhere(bucket: ObjectPath) -> bytes:
    content = json.dumps({"process": 1, "host": "elsewhere", "machine": "another boot", "since": "noon"}).encode()
    (bucket / ".lock").write(content)
    return content


def test_a_lock_of_another_machine_is_taken_over_when_it_is_not_renewed(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "EXPIRY_S", 2.0)
    _locked_elsewhere(bucket)
    waited: list[str] = []
    with Lease(bucket, on_wait=waited.append):
        assert json.loads((bucket / ".lock").read_text())["process"] == os.getpid()
    assert len(waited) == 1 and "elsewhere" in waited[0]


def test_a_lock_of_another_machine_that_is_renewed_is_respected(bucket: ObjectPath) -> None:
    content = _locked_elsewhere(bucket)
    ended = threading.Event()

    def renew() -> None:
        for n in range(10_000):
            if ended.wait(0.5):
                return
            (bucket / ".lock").write(content + b" " * (1 + n))

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        with pytest.raises(InputError, match=r"process \(1 on elsewhere since noon\) is at work"), Lease(bucket):
            pass
    finally:
        ended.set()
        renewing.join()


def test_a_renewal_whose_answer_got_lost_is_no_takeover(bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_S", 0.1)
    content, number = Lease._content, itertools.count()
    # no two renewals are of the same bytes: such would be known again as the same write
    monkeypatch.setattr(Lease, "_content", lambda lease: content(lease) + b" " * next(number))
    write, unheard = ObjectPath.write, threading.Event()

    def losing_one_answer(path: ObjectPath, content: bytes, **options: Any) -> str:
        tag = write(path, content, **options)
        if path.name == ".lock" and options.get("replacing") and not unheard.is_set():
            unheard.set()
            raise ObjectStoreError("scripted: no answer")
        return tag

    monkeypatch.setattr(ObjectPath, "write", losing_one_answer)
    with Lease(bucket) as lease:
        assert unheard.wait(30)
        time.sleep(1.5)
        lease.require()
        first = (bucket / ".lock").facts()
        time.sleep(1.5)
        second = (bucket / ".lock").facts()
        assert first is not None and second is not None and first.tag != second.tag, "it goes on renewing"
        lease.require()
    assert not (bucket / ".lock").exists()


def test_an_owner_that_slept_too_long_notices(bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "BEAT_S", 0.2)
    with Lease(bucket) as lease:
        lease.require()
        foreign = _locked_elsewhere(bucket)
        deadline = time.monotonic() + 60
        with pytest.raises(TakenOverError, match="another one has taken over"):
            while time.monotonic() < deadline:
                lease.require()
                time.sleep(0.05)
    assert (bucket / ".lock").read_bytes() == foreign, "it leaves the other one's lock alone"


def test_no_answer_is_an_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import timedelta

    from storage.places import bucket as objects

    monkeypatch.setattr(objects, "FIRST_CONTACT", timedelta(seconds=1))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    with pytest.raises(InputError, match="does not answer") as refused:
        claim_directory(ObjectPath(BUCKET, "run"))
    assert "hush" not in str(refused.value) and len(str(refused.value)) < 600
    with contextlib.suppress(InputError):
        ObjectPath(BUCKET).require_answer()


@pytest.mark.parametrize("size", [0, 10, 17_000_000], ids=["nothing", "one request", "in parts"])
def test_a_products_digest_comes_with_it_and_is_not_downloaded(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    path, content = bucket / "a.bin", os.urandom(size)

    def refuse(*_: object) -> None:
        raise AssertionError("it was downloaded")

    with monkeypatch.context() as offline:
        offline.setattr(ObjectPath, "open", refuse)
        with publish(path) as draft:
            draft.write_bytes(content)
        assert sha256_of(path) == hashlib.sha256(content).hexdigest()
    path.write(b"by another program")
    assert sha256_of(path) == hashlib.sha256(b"by another program").hexdigest()


@pytest.mark.parametrize("damage", [lambda sent: sent[:-1], lambda sent: b"x" + sent[1:]], ids=["cut off", "altered"])
def test_a_damaged_upload_is_found_and_does_not_stay(
    bucket: ObjectPath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: Callable[[bytes], bytes]
) -> None:
    put = obstore.put

    def damaged(store: Any, key: str, file: Path, **options: Any) -> Any:
        (tmp_path / "damaged").write_bytes(damage(file.read_bytes()))
        return put(store, key, tmp_path / "damaged", **options)

    monkeypatch.setattr("storage.places.bucket.obstore.put", damaged)
    with pytest.raises(IntegrityError, match=r"a\.txt: the store holds \d bytes that are not the 8 that were sent"):
        write_whole(bucket / "a.txt", b"8 bytes.")
    assert not (bucket / "a.txt").exists()


def test_where_tags_are_no_digests_what_was_sent_is_read_back(
    bucket: ObjectPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat = ObjectPath.stat
    monkeypatch.setattr(ObjectPath, "stat", lambda path: replace(stat(path), tag='"encrypted"'))
    write_whole(bucket / "a.txt", b"8 bytes.")
    assert (bucket / "a.txt").read_bytes() == b"8 bytes."


def write_whole(path: ObjectPath, content: bytes) -> None:
    with publish(path) as draft:
        draft.write_bytes(content)


PIECES = [bytes([number]) * 3_000_001 for number in range(5)]


@pytest.mark.parametrize("pieces", [PIECES, [b"8 ", b"bytes."], []], ids=["three parts", "one part", "nothing"])
def test_a_stream_is_one_object_with_its_digest(bucket: ObjectPath, pieces: list[bytes]) -> None:
    path, whole = bucket / "a.bin", b"".join(pieces)
    path.upload_stream(lambda: iter(pieces), size=len(whole))
    assert path.read_bytes() == whole
    assert path.sent_sha256() == hashlib.sha256(whole).hexdigest()


@pytest.mark.parametrize("count", [1, 5])
def test_a_stream_that_breaks_off_leaves_what_was_there(bucket: ObjectPath, count: int) -> None:
    path = bucket / "a.bin"
    path.write(b"before")
    calls = []

    def content() -> Iterator[bytes]:
        calls.append(None)
        yield from PIECES[:count]
        if len(calls) == 2:
            raise IntegrityError("scripted")

    with pytest.raises(IntegrityError, match=r"^scripted$"):
        path.upload_stream(content, size=sum(map(len, PIECES[:count])))
    assert path.read_bytes() == b"before"


def test_a_stream_that_is_not_what_it_was_does_not_stay(bucket: ObjectPath) -> None:
    streams = iter([PIECES, PIECES[::-1]])
    with pytest.raises(IntegrityError, match=r"a\.bin: the store holds 15000005 bytes that are not the 15000005 that"):
        (bucket / "a.bin").upload_stream(lambda: next(streams), size=15_000_005)
    assert not (bucket / "a.bin").exists()
