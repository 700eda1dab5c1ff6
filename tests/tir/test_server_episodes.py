import dataclasses

import pytest

from ctpo.tir import EpisodeSettings
from ctpo.tir.endpoint import Endpoint
from ctpo.tir.server_episodes import converse


def test_a_limit_in_tokens_that_only_the_server_could_count_is_refused(sandbox):
    settings = EpisodeSettings(max_response_tokens=9, max_calls=1)
    endpoint = Endpoint("http://127.0.0.1:9", "nobody")
    with pytest.raises(ValueError, match="max_output_tokens needs the model's tokenizer"):
        converse(
            endpoint,
            sandbox,
            [{"role": "user", "content": "1?"}],
            dataclasses.replace(settings, max_output_tokens=9),
            temperature=1.0,
            seed=0,
        )
