"""Text classifiers of transformers: tokens and words as players, and the mask token as baseline."""

import itertools

import pytest
import text_models
import torch
from text_models import VOCABULARY
from torch import Tensor
from transformers import BertForSequenceClassification, PreTrainedTokenizerFast

from captum_moxi import CoalitionGame, MoXIDeletion, MoXIInsertion

TEXT = "the keyboard is wonderful"
# the pieces of TEXT and the two special tokens
N_TOKENS, N_WORDS = 9, 4


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerFast:
    return text_models.tokenizer()


@pytest.fixture
def model() -> BertForSequenceClassification:
    return text_models.bert()


def log_odds(model: BertForSequenceClassification, ids: list[int], target: int) -> float:
    """Log-odds of the model on ids that were replaced by hand."""
    confidence = model(torch.tensor([ids])).logits.detach().double().softmax(1)[0, target]
    return float(confidence.log() - (1 - confidence).log())


def greedy_insertion(value_of, players: int) -> list[int]:
    """The player that adds most at each step, found by trying all of them."""
    order: list[int] = []
    while len(order) < players:
        order.append(max((p for p in range(players) if p not in order), key=lambda p: value_of({*order, p})))
    return order


def test_tokens_are_players_and_the_mask_token_is_the_baseline(model, tokenizer) -> None:
    tokens = tokenizer(TEXT, return_tensors="pt")
    ids = tokens["input_ids"]
    attr, selection = MoXIInsertion(model).attribute(
        ids,
        baselines=tokenizer.mask_token_id,
        target=1,
        additional_forward_args=tokens["attention_mask"],
        return_selection=True,
    )
    assert attr.shape == ids.shape == (1, N_TOKENS)

    def value_of(present: set[int]) -> float:
        kept = [token if i in present else VOCABULARY["[MASK]"] for i, token in enumerate(ids[0].tolist())]
        return log_odds(model, kept, 1)

    assert selection.order[0].tolist() == greedy_insertion(value_of, N_TOKENS)
    torch.testing.assert_close(float(selection.rewards[0, 0]), value_of(set()), rtol=1e-4, atol=1e-4)


def test_special_tokens_stay_if_their_baseline_is_themselves(model, tokenizer) -> None:
    tokens = tokenizer(TEXT, return_tensors="pt", return_special_tokens_mask=True)
    ids, special = tokens["input_ids"], tokens["special_tokens_mask"].bool()
    baselines = torch.where(special, ids, tokenizer.mask_token_id)
    game = CoalitionGame(model, ids, baselines=baselines, target=2)
    masked = [VOCABULARY["[CLS]"], *[VOCABULARY["[MASK]"]] * 7, VOCABULARY["[SEP]"]]
    assert float(game(torch.zeros(1, N_TOKENS))) == pytest.approx(log_odds(model, masked, 2), abs=1e-4)


def words_of(tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor, Tensor]:
    """The ids of TEXT, the baselines, and the word of each token. Special tokens are with the first word."""
    tokens = tokenizer(TEXT, return_tensors="pt", return_special_tokens_mask=True)
    ids = tokens["input_ids"]
    baselines = torch.where(tokens["special_tokens_mask"].bool(), ids, tokenizer.mask_token_id)
    words = torch.tensor([[0 if word is None else word for word in tokens.word_ids()]])
    return ids, baselines, words


def test_words_are_players_through_word_ids(model, tokenizer) -> None:
    ids, baselines, words = words_of(tokenizer)
    assert words.tolist() == [[0, 0, 1, 1, 2, 3, 3, 3, 0]]
    game = CoalitionGame(model, ids, baselines=baselines, target=0, feature_mask=words)
    assert game.n_players == N_WORDS
    pieces = ids[0].tolist()
    mask = VOCABULARY["[MASK]"]
    # the whole words, written out
    spans = [[pieces[1]], pieces[2:4], [pieces[4]], pieces[5:8]]

    def value_of(present: set[int]) -> float:
        kept = [span if word in present else [mask] * len(span) for word, span in enumerate(spans)]
        return log_odds(model, [pieces[0], *itertools.chain(*kept), pieces[8]], 0)

    coalitions = torch.tensor(list(itertools.product([0.0, 1.0], repeat=N_WORDS)))
    expected = [value_of(set(row.nonzero()[:, 0].tolist())) for row in coalitions]
    torch.testing.assert_close(game(coalitions), torch.tensor(expected), rtol=1e-4, atol=1e-4)

    attr, selection = MoXIInsertion(model).attribute(
        ids, baselines=baselines, target=0, feature_mask=words, return_selection=True
    )
    assert selection.order[0].tolist() == greedy_insertion(value_of, N_WORDS)
    # all pieces of a word have its score
    assert attr[0, 2] == attr[0, 3]
    assert attr[0, 5] == attr[0, 6] == attr[0, 7]


def test_a_batch_of_texts_has_padding_that_stays(model, tokenizer) -> None:
    texts = [TEXT, "the keyboard"]
    tokens = tokenizer(texts, return_tensors="pt", padding=True, return_special_tokens_mask=True)
    ids = tokens["input_ids"]
    baselines = torch.where(tokens["special_tokens_mask"].bool(), ids, tokenizer.mask_token_id)
    batch = MoXIDeletion(model).attribute(
        ids, baselines=baselines, target=1, additional_forward_args=tokens["attention_mask"], score="gain"
    )
    for row, text in enumerate(texts):
        alone = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
        attr = MoXIDeletion(model).attribute(
            alone["input_ids"],
            baselines=torch.where(alone["special_tokens_mask"].bool(), alone["input_ids"], tokenizer.mask_token_id),
            target=1,
            score="gain",
        )
        assert batch[row, : attr.shape[1]].tolist() == pytest.approx(attr[0].tolist(), abs=1e-4)


def test_the_words_of_a_multi_label_text_model_have_sigmoids(model, tokenizer) -> None:
    ids, baselines, words = words_of(tokenizer)
    model.config.problem_type = "multi_label_classification"
    game = CoalitionGame(model, ids, baselines=baselines, target=2, feature_mask=words, reward="probability")
    torch.testing.assert_close(game.full.rewards, model(ids).logits[:, 2].detach().sigmoid())
