#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The rule of ctrl/deadlock.c in every order of events of a small job: two nodes, threads that call, wait and let others go.

A look at a node is one event among those of the program, so nodes are looked at at different moments. Whenever the rule says
"deadlock" nothing may be left that can happen; and a job in which nothing can happen any more is said to be one. Rules with a
part left out must be found to be wrong.
"""
import sys

CALLS, POSTS = 3, 1
RUNS, SEM, ENDED = "runs", "sem", "ended"  # else the number of the call that the thread waits for


def start():
    # Threads: (node, state, call that it serves); a call is (thread, number). One root on each node.
    threads = ((0, RUNS, None), (1, RUNS, None))
    return threads, frozenset(), (0, 0), CALLS, POSTS, ()


def put(threads, i, state):
    node, _, serves = threads[i]
    return threads[:i] + ((node, state, serves),) + threads[i + 1:]


def steps(s):
    """What the program and the messages can do."""
    threads, messages, begun, calls, posts, looks = s
    for i, (node, state, serves) in enumerate(threads):
        if state != RUNS:
            continue
        if calls:
            number = CALLS - calls
            waits = put(threads, i, number)
            yield waits, messages | {("call", 1 - node, (i, number))}, begun, calls - 1, posts, looks
        yield put(threads, i, SEM), messages, begun, calls, posts, looks
        if posts:
            for j, (other, how, _) in enumerate(threads):
                if other == node and how == SEM:
                    yield put(threads, j, RUNS), messages, begun, calls, posts - 1, looks
        ended = put(threads, i, ENDED)
        more = messages | {("answer", None, serves)} if serves else messages
        count = tuple(n + (k == node) for k, n in enumerate(begun)) if serves else begun
        yield ended, more, count, calls, posts, looks
    for m in messages:
        what, to, call = m
        if what == "call":
            yield threads + ((to, RUNS, call),), messages - {m}, begun, calls, posts, looks
        else:
            yield put(threads, call[0], RUNS), messages - {m}, begun, calls, posts, looks


def look(s, node):
    """As nu_asleep_look(); None: not asleep. Sums are modelled as what they sum up."""
    mine = [(i, state, serves) for i, (n, state, serves) in enumerate(s[0]) if n == node and state != ENDED]
    if any(state == RUNS for _, state, _ in mine):
        return None
    waits = frozenset((i, state) for i, state, _ in mine if state != SEM)
    return waits, frozenset(serves for _, _, serves in mine if serves), len(mine), s[2][node]


def verdict(looks, rule):
    rounds = [looks[0:2], looks[2:4]]
    if any(a is None for a in looks):
        return False
    if rule != "no comparison" and rule != "one round" and rounds[0] != rounds[1]:
        return False
    last = rounds[0] if rule == "one round" else rounds[1]
    same = last[0][0] | last[1][0] == last[0][1] | last[1][1]
    return (same or rule == "no sums") and last[0][2] + last[1][2] > 0


def explore(rule):
    """Return: (states, a false alarm or None, a deadlock that would not be said or None)."""
    first = start()
    todo, seen = [first], {first}
    wanted = 2 if rule == "one round" else 4
    while todo:
        s = todo.pop()
        threads, messages, looks = s[0], s[1], s[5]
        left = list(steps(s))
        if not left and any(state != ENDED for _, state, _ in threads):
            a = (look(s, 0), look(s, 1)) * 2
            if not verdict(a[:wanted], rule):
                return len(seen), None, s
        if len(looks) == wanted:
            if verdict(looks, rule) and left:
                return len(seen), s, None
            continue
        for n in left + [s[:5] + (looks + (look(s, len(looks) % 2),),)]:
            if n not in seen and (not n[5] or n[5][-1] is not None):  # one that is not asleep ends the round
                seen.add(n)
                todo.append(n)
    return len(seen), None, None


bad = 0
for rule, right in ("as it is", True), ("one round", False), ("no comparison", False), ("no sums", False):
    states, alarm, silence = explore(rule)
    ok = (alarm is None and silence is None) == right
    bad += not ok
    print(f"{'ok  ' if ok else 'FAIL'} {rule}: {states} states, " +
          ("no false alarm, no silence" if not (alarm or silence) else f"{'false alarm' if alarm else 'silence'}: {alarm or silence}"))
print(f"{4 - bad} passed, {bad} failed")
sys.exit(bad != 0)
