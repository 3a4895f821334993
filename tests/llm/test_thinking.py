import pytest

from kernelevolve.llm.thinking import without_thinking


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ("plain", "plain"),
        ("<think>a\nb</think>\n\nreply", "reply"),
        (" <thinking>a</thinking>reply", "reply"),
        ("<think></think>\n<think>b</think>reply", "reply"),
        ("so it is\n</think>\nreply", "reply"),
        ("<think>never closed", ""),
        ("<think>all of it</think>", ""),
        ("reply\n```\n// a </think> in a kernel\n```", "reply\n```\n// a </think> in a kernel\n```"),
        ("Use <think> tags", "Use <think> tags"),
    ],
)
def test_only_what_comes_after_the_thinking_is_the_reply(reply, said):
    assert without_thinking(reply) == said


def test_a_long_reply_without_thinking_takes_no_time():
    text = "x = 1\n" * 50_000
    assert without_thinking(text) == text.strip()
