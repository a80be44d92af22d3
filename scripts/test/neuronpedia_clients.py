"""Neuronpedia's own Python client, as its package ships it, against a service of ours.

    TILLER_URL=http://127.0.0.1:8787 NEURONPEDIA_API_KEY=sk-til-... PYTHONPATH=<folder with the package> python3 neuronpedia_clients.py

The only thing that is set is its base address. Prints `ok` when every call that this version has was answered as the client reads it.
"""

import inspect
import os
import time

from neuronpedia.np_list import NPList, NPListItem
from neuronpedia.np_sae_feature import SAEFeature
from neuronpedia.np_vector import NPVector
from neuronpedia.requests import base_request
from neuronpedia.requests.activation_request import ActivationRequest
from neuronpedia.requests.steer_request import SteerChatRequest, SteerCompletionRequest
from neuronpedia.sample_data import GPT2_SMALL_RES_JB_JEDI_VECTOR

base_request.NPRequest.BASE_URL = os.environ["TILLER_URL"] + "/api"

MODEL, SOURCE, WIDTH = "tiller-tales", "3-tales-res", 256
TEXT = "The happy dog ran home."
VALUES = [(i % 7 - 3) / 3.0 for i in range(WIDTH)]
LABEL = f"client {time.time()}"


def new_vector(label: str, model: str, values: list[float], strength: float) -> NPVector:
    wanted = {"label": label, "model_id": model, "layer_num": 0, "vector": values, "default_steer_strength": strength}
    if "hook_type" in inspect.signature(NPVector.new).parameters:
        wanted["hook_type"] = "hook_resid_pre"
    return NPVector.new(**wanted)


def vectors() -> None:
    """What the client's own tests assert (its tests/test_vector.py), with its own sample vector."""
    jedi = new_vector(LABEL, "gpt2-small", GPT2_SMALL_RES_JB_JEDI_VECTOR, 15.0)
    assert jedi.url is not None and "gpt2-small" in jedi.url, jedi.url
    assert jedi.model_id == "gpt2-small" and jedi.source.startswith("0") and jedi.label == LABEL
    assert jedi.hook_name.endswith("hook_resid_pre") and jedi.default_steer_strength == 15.0
    assert all(abs(a - b) < 1e-4 for a, b in zip(jedi.values, GPT2_SMALL_RES_JB_JEDI_VECTOR, strict=True))
    assert any(vector == jedi for vector in NPVector.get_owned()), "get_owned gives other numbers than new"
    assert NPVector.get(jedi.model_id, jedi.source, jedi.index) == jedi
    jedi.delete()
    assert all(vector.index != jedi.index for vector in NPVector.get_owned())


def steering() -> None:
    vector = new_vector(LABEL, MODEL, VALUES, 4.0)
    answer = vector.steer_completion(prompt="One day")
    assert answer["STEERED"] and answer["DEFAULT"] and answer["shareUrl"].endswith(answer["id"]), answer
    chat = vector.steer_chat([{"role": "user", "content": "Can we play?"}])
    assert [m["role"] for m in chat["STEERED"]["chatTemplate"]] == ["user", "assistant"], chat
    assert chat["DEFAULT"]["raw"] and chat["settings"]["freq_penalty"] == 2, chat
    assert SteerCompletionRequest().steer(model_id=MODEL, vectors=[vector], prompt="One day", n_tokens=2)["STEERED"]
    activation = vector.compute_activation_for_text(TEXT)
    tokens, values = read_activation(activation)
    assert len(tokens) == len(values) > 3
    vector.upload_activations([activation])
    vector.delete()
    if has(SteerCompletionRequest, "steer_features"):
        from neuronpedia.np_feature import SteerFeature

        feature = SteerFeature(modelId=MODEL, source=SOURCE, index=7, strength=8)
        assert SteerCompletionRequest().steer_features(model_id=MODEL, features=[feature], prompt="One day")["STEERED"]
        messages = [{"role": "user", "content": "Can we play?"}]
        chat = SteerChatRequest().steer_features(
            model_id=MODEL, features=[feature], default_chat_messages=messages, steered_chat_messages=messages
        )
        assert chat["STEERED"]["chatTemplate"][-1]["content"]


def lists() -> None:
    made = NPList.new(LABEL, "of the client's test")
    assert made.add_items([NPListItem(model_id=MODEL, source=SOURCE, index="7")]).items[0].index == "7"
    assert any(each.id == made.id and each.name == LABEL for each in NPList.get_owned())
    again = NPList.get(made.id)
    assert (again.name, again.description) == (LABEL, "of the client's test"), again
    assert [item.source for item in again.items] == [SOURCE], again


def features() -> None:
    feature = SAEFeature.get(MODEL, SOURCE, "7")
    assert (feature.modelId, feature.source, str(feature.index)) == (MODEL, SOURCE, "7")
    tokens, values = read_activation(ActivationRequest().compute_activation_for_text(MODEL, SOURCE, "7", TEXT))
    assert len(tokens) == len(values)


def read_activation(activation) -> tuple[list[str], list[float]]:
    """1.0.8 gives the answer as it came."""
    if isinstance(activation, dict):
        return activation["tokens"], activation["values"]
    return activation.tokens, activation.values


def newer_calls() -> None:
    """Calls that came after 1.0.8."""
    from neuronpedia.np_activation import Activation
    from neuronpedia.np_explanation import Explanation
    from neuronpedia.np_feature import Feature, Logit
    from neuronpedia.np_model import Model
    from neuronpedia.np_source_set import SourceSet
    from neuronpedia.requests.source_activation_request import SourceActivationRequest
    from neuronpedia.requests.topk_by_token_request import TopKByTokenRequest

    feature = Feature.get(MODEL, SOURCE, 7)
    assert feature.density and feature.explanations[0].text and feature.activations[0].index == 7, feature
    texts = [TEXT, "A cat sat."]
    assert len(ActivationRequest().compute_activation_for_texts(MODEL, SOURCE, 7, texts)) == 2
    found = ActivationRequest().compute_all_source_activations_for_text(MODEL, SOURCE, TEXT)
    assert found[0]["tokens"] and found[0]["activeFeatures"], found
    top = SourceActivationRequest().compute_top_features_for_text(MODEL, SOURCE, TEXT)
    assert len(top) == 20 and max(top[0].values) >= max(top[1].values)
    assert len(SourceActivationRequest().compute_top_features_for_texts(MODEL, [SOURCE], texts, num_results=3)) == 2
    by_token = TopKByTokenRequest().compute_top_features_by_token_for_text(MODEL, SOURCE, TEXT, num_results=3)
    assert by_token[1].topFeatures[0].activationValue > 0 and len(by_token[1].topFeatures) == 3
    assert len(TopKByTokenRequest().compute_top_features_by_token_for_texts(MODEL, SOURCE, texts)) == 2

    model = Model.new(id=f"client-{int(time.time() * 1000)}", layers=2, display_name="Client", url="https://example.org")
    assert (model.layers, model.display_name, model.url) == (2, "Client", "https://example.org")
    made = SourceSet.new("res-client", model.id)
    assert [source.id for source in made.sources] == ["0-res-client", "1-res-client"]
    source = SourceSet.get(model.id, "res-client").get_source_for_layer_number(1)
    at = {"modelId": model.id, "source": source.id, "index": 5}
    uploaded = Feature(
        **at,
        density=0.25,
        top_logits=[Logit(" cat", 1.5)],
        explanations=[Explanation(**at, text="cats", method="by hand", explainer_model="nobody")],
        activations=[Activation(**at, tokens=["a", " cat"], values=[0.0, 2.5], quantileMax=0.9, quantileMin=0.1, quantileFraction=0.5)],
    )
    source.upload_batch([uploaded])
    again = Feature.get(model.id, source.id, 5)
    assert again.density == 0.25 and again.activations == uploaded.activations, again
    assert again.explanations == uploaded.explanations, again.explanations


def has(what: type, name: str) -> bool:
    return hasattr(what, name)


def refusals() -> None:
    """A failure of each kind is the exception that the client documents."""
    import requests

    try:
        NPVector.get("gpt2-small", "0-neuronpedia-resid-pre", "179999999")
        raise AssertionError("a vector that is not there was found")
    except requests.exceptions.HTTPError as error:
        assert "not found" in str(error), error
    try:
        new_vector(LABEL, MODEL, [1.0, 2.0], 1.0)
        raise AssertionError("a vector of another width was kept")
    except requests.exceptions.HTTPError as error:
        assert "needs exactly 256" in str(error), error


if __name__ == "__main__":
    for check in (vectors, steering, lists, features, refusals):
        check()
    if has(ActivationRequest, "compute_activation_for_texts"):
        newer_calls()
    print("ok")
