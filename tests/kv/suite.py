#!/usr/bin/env python3
"""Uses the module kv through the package redis of PyPI. Arguments: port, protocol version (2 or 3)."""

import sys
import threading
import time

import redis

PORT, PROTOCOL = int(sys.argv[1]), int(sys.argv[2])


def client(**more):
    return redis.Redis(host="127.0.0.1", port=PORT, protocol=PROTOCOL, socket_timeout=20, **more)


def fails(kind, words, function, *arguments, **named):
    try:
        function(*arguments, **named)
    except kind as error:
        assert words in str(error), error
    else:
        raise AssertionError(f"{words}: no error")


def values(r):
    assert r.ping() is True
    assert r.echo("hello") == b"hello"
    assert r.set("a", "one") is True and r.get("a") == b"one" and r.get("none") is None
    assert r.set("a", "two", nx=True) is None and r.set("b", "two", xx=True) is None
    assert r.set("a", "two", get=True) == b"one"
    assert r.getdel("a") == b"two" and r.getdel("a") is None
    assert r.mset({"x": 1, "y": b"\x00\xff", "z": ""}) is True
    assert r.mget("x", "y", "z", "none") == [b"1", b"\x00\xff", b"", None]
    assert r.exists("x", "y", "none") == 2 and r.delete("x", "y", "none") == 2
    assert r.append("text", "ab") == 2 and r.append("text", "cd") == 4 and r.strlen("text") == 4
    assert r.type("text") == b"string" and r.type("none") == b"none"
    binary = bytes(range(256)) * 100
    assert r.set(binary, binary) and r.get(binary) == binary
    assert r.set("unicode-é", "ü") and r.get("unicode-é").decode() == "ü"


def numbers(r):
    assert [r.incr("n"), r.incr("n", 9), r.decr("n"), r.decr("n", 4), r.incrby("n", 5)] == [1, 10, 9, 5, 10]
    r.set("text", "x")
    fails(redis.ResponseError, "value is not an integer or out of range", r.incr, "text")
    r.set("n", 2**63 - 1)
    fails(redis.ResponseError, "increment or decrement would overflow", r.incr, "n")


def ends(r):
    assert r.ttl("none") == -2
    r.set("a", 1)
    assert r.ttl("a") == -1 and r.expire("a", 100) and 90 <= r.ttl("a") <= 100 and 90_000 < r.pttl("a") <= 100_000
    assert r.persist("a") and not r.persist("a") and r.ttl("a") == -1
    r.set("a", 1, px=30)
    r.set("b", 1, ex=50)
    r.set("b", 2, keepttl=True)
    assert 40 <= r.ttl("b") <= 50
    end = time.monotonic() + 20
    while r.exists("a"):
        assert time.monotonic() < end
    assert r.pexpire("b", 1_000_000)
    fails(redis.ResponseError, "invalid expire time in 'set' command", r.set, "a", 1, ex=0)


def scanning(r):
    r.mset({f"key:{number}": number for number in range(2000)})
    assert r.dbsize() == 2000
    assert set(r.scan_iter("key:*", count=100)) == {b"key:%d" % number for number in range(2000)}
    assert set(r.keys("key:1?")) == {b"key:%d" % number for number in range(10, 20)}
    cursor, seen = 0, set()
    while True:
        cursor, keys = r.scan(cursor, count=7)
        seen.update(keys)
        # Growth during the iteration loses no key.
        r.set(f"new:{cursor}", 1)
        if cursor == 0:
            break
    assert seen >= {b"key:%d" % number for number in range(2000)}


def connections(r):
    named = client(client_name="me")
    assert named.client_getname() in ("me", b"me") and isinstance(named.client_id(), int)
    assert r.select(0) is True
    fails(redis.ResponseError, "DB index is out of range", r.select, 1)
    assert r.info()["redis_mode"] == "standalone" and r.info("memory")["used_memory"] >= 0
    assert r.command_count() > 40 and "get" in r.command()
    fails(redis.ResponseError, "unknown command", r.execute_command, "LPUSH", "l", 1)
    fails(redis.ResponseError, "wrong number of arguments for 'get' command", r.execute_command, "GET")
    fails(redis.ResponseError, "unsupported protocol version", r.execute_command, "HELLO", 9)


def pipelines(r):
    pipeline = r.pipeline(transaction=False)
    for number in range(5000):
        pipeline.set(f"p{number}", "v" * (number % 500))
        pipeline.get(f"p{number}")
    replies = pipeline.execute()
    assert all(replies[2 * number + 1] == b"v" * (number % 500) for number in range(5000))


def at_once(_):
    def count():
        mine = client()
        for _ in range(500):
            mine.incr("counter")

    threads = [threading.Thread(target=count) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client().get("counter") == b"4000"


def main():
    r = client()
    for case in (values, numbers, ends, scanning, connections, pipelines, at_once):
        assert r.flushall() and r.dbsize() == 0
        case(r)
        print("passed", case.__name__, flush=True)
    r.flushall()
    print("all passed")


if __name__ == "__main__":
    main()
