"""How much a question may ask of the server, and all questions together: every bound.

A bound of one field does not bound a product: a thousand users are allowed, and lists of a thousand
items are, but a thousand lists of a thousand items take ten seconds. So products are bounded, too.
A question that is too big in itself is refused with 413 (or 422, where a field says so). A question
that comes while the server has too much to do is refused with 503 and Retry-After.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The bounds. The processor times beside them were measured on one core of 2023.

    One question:

    Attributes:
        k: items of a list; who shows more than a thousand has another question.
        batch: users, rows or denied ids; more cost as much in several questions.
        rules: `column=value` of `only`; each looks at the whole catalogue.
        body: bytes of a body.
        values: values of a body, counted by its commas and brackets before it is parsed; to parse
            and check so many takes 30 ms, in which nobody else is heard.
        ranks: users x k; a rank takes 10 microseconds and 100 bytes of the answer.
        scores: users x items of the catalogue; so many take a second.
        numbers: rows x dimensions that `/embed` answers; a number takes 20 bytes of the answer.
        answer: bytes of an answer; long labels make it longer than `ranks` says.

    All questions together:

    Attributes:
        piece: ranks that are made in one go; between pieces the server looks whether the asker is
            still there, and other questions get their turn.
        small: the cost, in ranks, up to which questions are answered side by side. Bigger ones are
            answered one after the other, so that small ones need not wait for them.
        questions: small questions in progress; the last of them waits about half a second.
        waiting: the cost, in ranks, of big questions in progress: five of the biggest.
        large_body: bytes from which a body takes a turn among the big ones before it is parsed.
        reading: bytes of bodies that have not come whole yet.
        sending: bytes of long answers that their askers have not taken yet.
        connections: open ones; the one that has waited longest for a question is closed for a new
            one. Each takes a file descriptor, and Linux gives a process 1,024 unless told.
        backlog: connections that the kernel holds until the server takes them; beyond it they are
            dropped, and come again a second later.
        accepted: connections that the server takes in one go, before it can close any.

    Seconds:

    Attributes:
        head: for the head of a request to come.
        reading_seconds: for its body to come.
        sending_seconds: for its answer to be taken.
        retry: the seconds that a refused asker is told to wait.
        grace: the seconds that running questions get to end once the server is told to stop.
    """

    k: int = 1000
    batch: int = 1000
    rules: int = 20
    body: int = 1 << 20
    values: int = 1 << 17
    ranks: int = 50_000
    scores: int = 500_000_000
    numbers: int = 500_000
    answer: int = 16 << 20

    piece: int = 2_000
    small: int = 500
    questions: int = 256
    waiting: int = 250_000
    large_body: int = 8 << 10
    reading: int = 64 << 20
    sending: int = 64 << 20
    connections: int = 800
    backlog: int = 1024
    accepted: int = 32

    head: float = 10.0
    reading_seconds: float = 20.0
    sending_seconds: float = 60.0
    retry: int = 1
    grace: float = 30.0


LIMITS = Limits()
