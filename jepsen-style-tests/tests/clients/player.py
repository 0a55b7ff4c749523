"""Plays steps once, or by several workers over and over until standard input ends.

    program.py once URL,URL,URL
    program.py loop URL,URL

Prints a line after each step and, at the end, one line of JSON: how many calls were made, and how long
the slowest of them took. Ends with 1 at the first surprise.
"""

import json
import os
import sys
import threading
import traceback
from urllib.parse import urlsplit

from steps import Cluster

WORKERS = 3


def say(line):
    print(line, flush=True)


def play_story(cluster, steps, word):
    for number, (name, step) in enumerate(steps):
        step(cluster, f"{word}-{number}")
        say(f"step {word}: {name}")


def play(package, connect, steps, alone):
    """`connect(host, port)` makes a client; steps of `alone` do not bear company."""
    mode, urls = sys.argv[1], [urlsplit(url) for url in sys.argv[2].split(",")]
    # Names of their own in every run, for clusters that live longer.
    word = f"{package}-{os.getpid()}"

    def cluster():
        return Cluster([connect(url.hostname, url.port) for url in urls])

    if mode == "once":
        clusters = [cluster()]
        play_story(clusters[0], list(steps.items()) + list(alone.items()), word)
    else:
        clusters = [cluster() for _ in range(WORKERS)]
        play_until_told(clusters, list(steps.items()), word)
    calls = sum(cluster.calls for cluster in clusters)
    slowest_ms = round(1000 * max(cluster.slowest_s for cluster in clusters))
    say(json.dumps({"calls": calls, "slowest_ms": slowest_ms}))


def play_until_told(clusters, steps, word):
    is_over = threading.Event()

    def work(worker, cluster):
        # Each begins elsewhere in the story, so that a fault meets all kinds of steps.
        first = worker * len(steps) // len(clusters)
        mine = steps[first:] + steps[:first]
        story = 0
        while not is_over.is_set():
            story += 1
            play_story(cluster, mine, f"{word}-{worker}-{story}")
            say(f"story {story} of worker {worker}")

    def guarded(worker, cluster):
        try:
            work(worker, cluster)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            # The other workers may be waiting for something long.
            os._exit(1)

    threads = [
        threading.Thread(target=guarded, args=pair, daemon=True) for pair in enumerate(clusters)
    ]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    is_over.set()
    for thread in threads:
        thread.join()
