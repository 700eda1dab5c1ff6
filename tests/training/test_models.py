"""What a recipe says of its model is checked without its weights, and used."""

import pytest
from transformers import ViTConfig

from ctpo.training.models import HubOutOfReach, ModelNotFound, check_model, load_tokenizer
from ctpo.training.recipe.loading import RecipeError, load_recipe
from ctpo.training.recipe.model import Model

TEMPLATE = "{% for m in messages %}{{ m.content }}\n{% endfor %}"


@pytest.fixture
def places(model, tokenizer, tmp_path):
    """Directories that lack one thing each."""
    own = tokenizer.chat_template
    for name in ("whole", "bare", "untold"):
        model.save_pretrained(tmp_path / name)
    tokenizer.save_pretrained(tmp_path / "whole")
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "untold")
    tokenizer.chat_template = own
    model.config.save_pretrained(tmp_path / "weightless")
    ViTConfig().save_pretrained(tmp_path / "vit")
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine.jinja").write_text(TEMPLATE)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "nope cannot be loaded: there is no such directory"),
        ("empty", "the directory holds no whole model"),
        ("vit", "vit is a vit, which is no language model"),
        ("weightless", "holds no weights"),
        ("bare", "the directory holds no whole tokenizer: there is none"),
        ("untold", "no chat template; .* model.chat_template"),
    ],
)
def test_a_model_that_cannot_be_trained_is_refused_with_what_it_lacks(places, name, message):
    with pytest.raises(ModelNotFound, match=message) as caught:
        check_model(Model(path=str(places / name)))
    assert not isinstance(caught.value, HubOutOfReach)


def test_what_a_model_lacks_a_recipe_can_give_it(places):
    whole, bare = str(places / "whole"), str(places / "bare")
    check_model(Model(path=whole))
    check_model(Model(path=bare, tokenizer=whole))
    for template in (TEMPLATE, str(places / "mine.jinja")):
        told = Model(path=str(places / "untold"), chat_template=template)
        check_model(told)
        found = load_tokenizer(places / "untold", told)
        chat = [{"role": "user", "content": "17?"}]
        assert found.apply_chat_template(chat, tokenize=False) == "17?\n"


def test_a_hub_that_cannot_be_asked_says_nothing_of_the_model():
    with pytest.raises(HubOutOfReach, match="as a Hub name it gave"):
        check_model(Model(path="some/model"))
    with pytest.raises(ModelNotFound, match="a/b/c cannot be loaded: there is no such directory"):
        check_model(Model(path="a/b/c"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.chat_template=none.jinja", "no file 'none.jinja'"),
        ("model.tokenizer=other", "tokenizer is for a model from a path"),
    ],
)
def test_a_template_or_tokenizer_without_effect_is_refused(change, message):
    start = "qwen3-4b-1gpu" if "jinja" in change else "tiny"
    with pytest.raises(RecipeError, match=message):
        load_recipe(start, [change])
