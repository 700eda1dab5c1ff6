import copy

import pytest

from ctpo.tir import EpisodeSettings
from ctpo.tir.open_episode import EpisodeRules
from ctpo.tir.rendering import render

USER = {"role": "user", "content": "Find the gcd of 12 and 18."}
SYSTEM = {"role": "system", "content": "Use the tool."}
REFUSALS = {
    "no system": "{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}",
    "alternate": "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}{% endfor %}",
}


@pytest.fixture
def refusing(tokenizer):
    def make(name):
        strict = copy.deepcopy(tokenizer)
        strict.chat_template = REFUSALS[name] + "{{ messages[-1]['content'] }}"
        return strict

    return make


@pytest.mark.parametrize("template", REFUSALS)
def test_a_template_without_system_messages_is_told_to_go_without_instructions(refusing, template):
    strict = refusing(template)
    assert render(strict, [USER]) == USER["content"]
    with pytest.raises(ValueError, match=r"takes no system message \(.*leave the instructions out"):
        render(strict, [SYSTEM, USER])
    with pytest.raises(ValueError, match=r"data\.instructions of a recipe"):
        EpisodeRules(strict, EpisodeSettings(max_response_tokens=9, max_calls=1)).encode(
            [SYSTEM, USER]
        )


def test_what_is_refused_for_another_reason_is_not_blamed_on_the_system_message(refusing):
    with pytest.raises(ValueError, match="roles system, user, user: roles must alternate"):
        render(refusing("alternate"), [SYSTEM, USER, USER])


def test_the_options_reach_the_template(tokenizer):
    own = copy.deepcopy(tokenizer)
    own.chat_template = "{{ messages[0]['content'] }}{% if enable_thinking %}<think>{% endif %}"
    assert render(own, [USER], {"enable_thinking": True}) == USER["content"] + "<think>"
