"""Who is waited for, and who is asked again."""

from __future__ import annotations

from fairsynth.federation.waiting import AT_ONCE, FIRST, Waiting


def online(*keys):
    return {key: key in keys for key in ("a", "b")}


def test_a_reply_to_either_of_two_messages_of_a_site_is_its_answer():
    for number, other in (("1", "3"), ("3", "1")):
        waiting = Waiting()
        waiting.sent(["a", "b"], ["1", "2"])
        waiting.lose_all(until=5.0)
        assert waiting.due(now=4.9, online=online("a", "b")) == []
        assert waiting.due(now=5.0, online=online("a")) == ["a"]
        waiting.sent(["a"], ["3"])
        assert waiting.due(now=9.0, online=online("a", "b")) == ["b"]  # a was asked again
        assert waiting.answered(number) == "a"
        assert waiting.answered(other) is None
        assert waiting.numbers == ["2"]


def test_whoever_lost_a_message_is_waited_for_until_the_next_answer():
    waiting = Waiting()
    waiting.sent(["a"], ["1"])
    assert waiting.answered("1") == "a"
    waiting.lose(["a"], until=1.0)
    assert waiting
    assert waiting.numbers == []
    assert not waiting.may_be_due(now=0.5)
    assert waiting.may_be_due(now=1.0)
    waiting.sent(["a"], ["2"])
    assert not waiting.may_be_due(now=9.0)
    assert waiting.answered("2") == "a"
    assert not waiting


def test_a_message_that_was_not_taken_is_not_waited_for():
    waiting = Waiting()
    waiting.sent(["a", "b"], [None, "2"])
    assert waiting.numbers == ["2"]
    assert waiting.answered("1") is None


def test_as_many_replies_are_fetched_together_as_fit_by_the_largest_that_came():
    waiting = Waiting()
    waiting.sent(range(100), [f"m{number}" for number in range(100)])
    first, *_ = waiting.batches(10)
    assert len(first) == FIRST  # nobody knows how large replies are
    waiting.answered("m0", size=AT_ONCE // 30)
    assert [len(few) for few in waiting.batches(10)] == [30, 30, 30, 9]
    assert [len(few) for few in waiting.batches(AT_ONCE // 2)][:2] == [2, 2]  # requests are larger
    seen = []
    for few in waiting.batches(10):
        seen += few
        waiting.answered(few[0], size=2 * AT_ONCE)  # the next ones come one by one
    assert seen == [f"m{number}" for number in range(1, 100)]
