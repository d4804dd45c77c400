"""All limits of the HTTP server: on one request, on all requests together, and on waiting times.

Bounds on single fields are not enough: 1,000 users are allowed, and lists of 1,000 items are
allowed, but 1,000 lists of 1,000 items take ten seconds. Products of fields, such as users x length
of a list, have bounds of their own. A request that is too large is refused with 413 (or 422, if one
field is at fault). A request that comes while the server is overloaded is refused with 503 and
Retry-After.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Largest number of users or rows that are computed at a time; more take no less time per user.
MAX_ROWS = 64


@dataclass(frozen=True)
class Limits:
    """The limits of the HTTP server. Times were measured on one core of a 2023 processor.

    Costs of requests are counted in list entries: an entry is one item of one list, and takes about
    10 microseconds and 100 bytes of the answer.

    Bounds on one request:

    Attributes:
        k: greatest length of a list of recommended items.
        batch: greatest number of users, of rows of raw values, or of denied ids in a request.
            Larger batches would not be faster.
        rules: greatest number of `column=value` item filters in the field `only`; each rule reads
            the whole catalogue.
        body: greatest size of a request body, bytes.
        values: greatest number of JSON values in a request body, counted by commas and brackets
            before the body is parsed. To parse and check so many values takes 30 ms, during which
            all other requests wait.
        entries: greatest number of list entries of a request: users x k.
        scores: greatest number of scores of a request, users x items of the catalogue; to compute
            that many takes a second.
        numbers: greatest number of numbers in an answer of `/embed`, rows x dimensions of an
            embedding; a number takes 20 bytes.
        answer: greatest size of an answer, bytes. Long display columns of items can make an answer
            reach this size before `entries` is reached.

    Bounds on all requests together:

    Attributes:
        piece: number of list entries of a long answer that are computed at a time. After each piece
            of an answer, the server checks that the client is still connected, and lets other
            requests run.
        small: greatest cost, in list entries, of a small request; small requests run concurrently.
            Larger requests run one after the other, so that small requests do not wait for large
            ones.
        small_requests: greatest number of small requests in progress; with more, a request would
            wait longer than half a second.
        large_cost: greatest total cost, in list entries, of the large requests in progress: five
            requests of the largest size.
        large_body: size, in bytes, from which a request body counts as large: it is parsed only
            when no other large request runs.
        unread: greatest number of bytes of request bodies that have not arrived completely.
        unsent: greatest number of bytes of long answers that clients have not received yet.
        connections: greatest number of open connections. When one more client connects, the
            connection that has been idle longest is closed. Each connection takes a file
            descriptor; Linux gives a process 1,024 by default.
        backlog: number of connections that the kernel queues until the server accepts them. Further
            connection attempts are dropped, and clients repeat them a second later.
        accepted: number of connections that the server accepts in one step of the event loop.

    Times, in seconds:

    Attributes:
        head_seconds: time limit until the head of a request has arrived.
        body_seconds: time limit until the body of a request has arrived.
        answer_seconds: time limit until the client has received an answer.
        retry_seconds: value of the header Retry-After of a 503 answer.
        grace_seconds: how long running requests may take after the signal to stop.
    """

    k: int = 1000
    batch: int = 1000
    rules: int = 20
    body: int = 1 << 20
    values: int = 1 << 17
    entries: int = 50_000
    scores: int = 500_000_000
    numbers: int = 500_000
    answer: int = 16 << 20

    piece: int = 2_000
    small: int = 500
    small_requests: int = 256
    large_cost: int = 250_000
    large_body: int = 8 << 10
    unread: int = 64 << 20
    unsent: int = 64 << 20
    connections: int = 800
    backlog: int = 1024
    accepted: int = 32

    head_seconds: float = 10.0
    body_seconds: float = 20.0
    answer_seconds: float = 60.0
    retry_seconds: int = 1
    grace_seconds: float = 30.0

    def users_at_a_time(self, k: int) -> int:
        """Return the number of users whose lists of k items are computed at a time."""
        return max(1, min(MAX_ROWS, self.piece // k))


LIMITS = Limits()
