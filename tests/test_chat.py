"The format of a chat: four tokens that no text contains, and the mask of answers."

import json

import pytest
import torch

from gpt2edu.model.gpt import GPT, GPTConfig
from gpt2edu.model.pretrained import export, from_pretrained
from gpt2edu.text.chat import (
    CHAT,
    answer_text,
    check_messages,
    encode_chat,
    is_chat,
    need_chat,
    parse,
    prompt_ids,
    render,
    with_chat,
)
from gpt2edu.text.corpus import stories
from gpt2edu.text.tokenizer import Tokenizer


def said(role, content):
    return {"role": role, "content": content}


TALK = [
    said("system", "Answer in one sentence."),
    said("user", "Mia had a ball.\n\nWho has the ball?"),
    said("assistant", "It is with Mia."),
    said("user", " And where is Zoë? "),
    said("assistant", "Nobody knows."),
]


@pytest.fixture(scope="module")
def plain():
    return Tokenizer.train([s.text for s in stories(50)], 400, "stories")


@pytest.fixture(scope="module")
def tokenizer(plain):
    return with_chat(plain)


def test_the_new_tokens_follow_and_nothing_else_moves(plain, tokenizer):
    assert [tokenizer.special[t] for t in CHAT] == [plain.n_vocab + i for i in range(4)]
    assert tokenizer.n_vocab == plain.n_vocab + 4 and tokenizer.eot == plain.eot
    text = "Mia had <|user|> a ball.<|end|>"
    assert tokenizer.encode(text) == plain.encode(text)
    assert tokenizer.hash != plain.hash
    assert is_chat(tokenizer) and not is_chat(plain) and with_chat(tokenizer) is tokenizer


def test_no_text_gives_a_token_of_the_chat(tokenizer):
    texts = [f"a {token} b" for token in CHAT] + ["<|user|>", "<|end|><|assistant|>"]
    for text in texts:
        assert max(tokenizer.encode(text)) < tokenizer.eot
        assert tokenizer.decode(tokenizer.encode(text)) == text
    for ids in tokenizer.encode_batch(texts):
        assert max(ids) < tokenizer.eot


def test_text_and_back():
    assert parse(render(TALK)) == TALK
    assert render(TALK[:2], answer_next=True).endswith("ball?<|assistant|>")


def test_exactly_the_answers_are_marked(tokenizer):
    ids, answers = encode_chat(tokenizer, TALK)
    assert tokenizer.decode(ids) == render(TALK)
    marked = [i for i, a in zip(ids, answers, strict=True) if a]
    assert tokenizer.decode(marked) == "It is with Mia.<|end|>Nobody knows.<|end|>"
    first = prompt_ids(tokenizer, TALK[:2])
    assert ids[: len(first)] == first and not any(answers[: len(first)])
    assert answers[len(first)]
    assert answer_text(tokenizer, ids[len(first) :]) == "It is with Mia."


def test_saved_and_opened(tokenizer, plain, tmp_path):
    file = tokenizer.save(tmp_path)
    again = Tokenizer.load(file)
    assert again.special == tokenizer.special and again.hash == tokenizer.hash
    data = json.loads(file.read_text(encoding="utf-8"))
    for special in (
        data["special_tokens"] | {"<|end|>": 7},
        {k: v for k, v in data["special_tokens"].items() if k != "<|user|>"},
        data["special_tokens"] | {"Hello": tokenizer.n_vocab},
    ):
        file.write_text(json.dumps(data | {"special_tokens": special}), encoding="utf-8")
        with pytest.raises(ValueError, match=r"special_tokens|hash"):
            Tokenizer.load(file)


@pytest.fixture(scope="module")
def exported(tokenizer, tmp_path_factory):
    config = GPTConfig(1, 2, 16, 64, 512)
    model = GPT(config, torch.Generator().manual_seed(0))
    return model, export(model, tokenizer, tmp_path_factory.mktemp("hub") / "chat")


def test_transformers_gives_the_same_ids(tokenizer, exported):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(exported[1])
    for talk in (TALK, TALK[1:], TALK[1:3]):
        got = theirs.apply_chat_template(talk, tokenize=False)
        assert theirs(got)["input_ids"] == encode_chat(tokenizer, talk).ids
    got = theirs.apply_chat_template(TALK[:2], tokenize=False, add_generation_prompt=True)
    assert theirs(got)["input_ids"] == prompt_ids(tokenizer, TALK[:2])
    assert theirs.eos_token == "<|end|>"
    assert theirs.decode(theirs(got)["input_ids"], skip_special_tokens=True).count("<|") == 0


def test_transformers_stops_at_the_end_of_an_answer(exported):
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(exported[1])
    config = json.loads((exported[1] / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert "assistant" in config["chat_template"]
    assert model.generation_config.eos_token_id == model.config.vocab_size - 1


def test_an_export_comes_back_with_its_chat(tokenizer, exported):
    model, own = from_pretrained(exported[1])
    assert own.special == tokenizer.special and own.hash == tokenizer.hash
    assert model.config.vocab_size == tokenizer.n_vocab


BAD = {
    "empty": ([], "is empty"),
    "role": ([said("bot", "Hello.")], 'message 1.role is "bot"'),
    "blank": ([said("user", " \n")], "message 1.content is"),
    "order": ([said("user", "a"), said("user", "b")], "message 2 is by user, expected assistant"),
    "first": ([said("assistant", "a")], "message 1 is by assistant, expected user"),
    "system": ([said("system", "a")], "a system message only"),
    "text": (["Hello"], "message 1 is"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_conversation(name):
    messages, why = BAD[name]
    with pytest.raises(ValueError, match=why) as e:
        check_messages(messages)
    assert "\n" not in str(e.value)


def test_a_model_without_a_chat_is_refused(plain, tokenizer):
    need_chat(tokenizer, "runs/tiny-sft")
    with pytest.raises(ValueError, match=r"runs/tiny has no chat template.*--preset tiny-sft"):
        need_chat(plain, "runs/tiny")
    with pytest.raises(ValueError, match="an answer already"):
        prompt_ids(tokenizer, TALK)
