"""Changes reach watchers once, in order, at no cost without them, and never without bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from api.call import Pace
from api.feed import Feed, FeedClosedError, Subscription, TooSlowError

MOST = 100


def watched(story: Callable[[Feed[str], Subscription[str]], object], bound: int = 4) -> list[str]:
    """What a watcher takes after `story` was played to its feed."""

    async def play() -> list[str]:
        feed = Feed[str]()
        with feed.subscribe(bound) as subscription:
            story(feed, subscription)
            return await asyncio.wait_for(subscription.take(MOST), 1)

    return asyncio.run(play())


def test_a_key_that_changes_twice_is_told_once_at_its_first_place() -> None:
    def story(feed: Feed[str], _: Subscription[str]) -> None:
        feed.publish("ab")
        feed.publish("ca")

    assert watched(story) == ["a", "b", "c"]


def test_a_watcher_over_its_bound_is_too_slow_and_keeps_nothing() -> None:
    with pytest.raises(TooSlowError, match="more than 4 changes"):
        watched(lambda feed, _: feed.publish("abcde"))


def test_a_closed_watch_says_so() -> None:
    with pytest.raises(FeedClosedError, match="the daemon is shutting down"):
        watched(lambda _, subscription: subscription.close())


def test_a_feed_without_watchers_does_not_even_look_at_the_keys() -> None:
    async def play() -> None:
        feed = Feed[str]()
        with feed.subscribe(1):
            assert feed
        assert not feed
        feed.publish(pytest.fail("looked") for _ in range(1))

    asyncio.run(play())


def test_what_is_not_taken_stays_for_the_next_look() -> None:
    async def play() -> None:
        feed = Feed[str]()
        with feed.subscribe(10) as subscription:
            feed.publish("abc")
            assert await subscription.take(2) == ["a", "b"]
            feed.publish("a")
            assert await subscription.take(2) == ["c", "a"]
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(subscription.take(2), 0.01)

    asyncio.run(play())


def test_calls_together_get_one_slice_of_each_turn_of_the_loop() -> None:
    """Three calls, each with work for many slices; between two turns of the loop only one may work."""

    async def play() -> tuple[list[int], int]:
        pace = Pace(slice_time=0)  # one item a slice
        worked_in_turn: list[int] = []
        turn = 0

        def work(item: int) -> int:
            worked_in_turn.append(turn)
            return item

        async def call() -> int:
            return sum([len(chunk) async for chunk in pace.chunks(iter(range(40)), work)])

        calls = asyncio.gather(call(), call(), call())
        while not calls.done():
            await asyncio.sleep(0)
            turn += 1
        return worked_in_turn, sum(await calls)

    worked_in_turn, items = asyncio.run(play())
    assert items == len(worked_in_turn) == 120
    assert len(set(worked_in_turn)) == 120
