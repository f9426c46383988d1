"""The gateway in front of a real broker, by the official client: what it answers, what it asks, and what it tells the log."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest

from adapters.keys import receipt_key
from adapters.routes import RouteWriter
from adapters.settings import Settings
from core.receipts import key_id, verify
from core.routing import with_candidate, with_champion
from schemas.messages import CallConfiguration, ContentPart
from tests.integration.gateway_process import KEY, Provider, Running, arrived, gateway, release, reports, until

pytestmark = pytest.mark.integration
TOOL = {"type": "function", "function": {"name": "look_up", "parameters": {"type": "object", "properties": {}}}}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider().running() as provider:
        yield provider


@pytest.fixture(scope="module")
def settings(broker: Settings) -> Settings:
    return broker.model_copy(update={"instance": "gateway-1"})


@pytest.fixture(scope="module")
def running(settings: Settings, provider: Provider, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with gateway(settings, provider.url, tmp_path_factory.mktemp("gateway") / "log") as one:
        until(lambda: reports(settings, "gateway-1"))
        yield one.wait()


def routed(running: Running, app: str, version: str = "v1", **configuration: Any) -> None:
    """Give an app a route and wait until the gateway has said that it applied it."""
    epoch = release(running.settings, app, version, **configuration).epoch
    applied(running, app, epoch)


def applied(running: Running, app: str, epoch: int) -> Any:
    def found() -> Any:
        routes = reports(running.settings, "gateway-1")[-1].routes
        return next((route for route in routes if route.app == app and route.epoch == epoch), None)

    return until(found)


def test_an_answer_passes_as_it_is(running: Running) -> None:
    answer = running.ask("passed").parse()
    assert (answer.choices[0].message.content, answer.model, answer.usage.total_tokens) == ("So it is.", "passed", 14)


def test_a_model_without_a_route_is_asked_for_unchanged_to_the_byte(running: Running, provider: Provider) -> None:
    body = b'{ "model":"raw","x":1.50, "messages" : [{"role":"odd","content":"\\u00e9"},{"role":"user","content":"q"}] }'
    url = f"{running.url}/chat/completions?a=1&b=%20"
    answer = httpx.post(url, content=body, headers={"authorization": f"Bearer {KEY}", "x-mine": "2"})
    assert answer.status_code == 200
    assert (provider.bodies[-1], provider.queries[-1]) == (body, "a=1&b=%20")
    assert (provider.headers[-1]["x-mine"], provider.headers[-1]["Authorization"]) == ("2", "Bearer their-key")


def test_a_route_gives_model_prompt_parameters_and_tools(running: Running, provider: Provider) -> None:
    routed(running, "desk", system_prompt="Be kind.", parameters={"temperature": 0.25}, tools=[TOOL])
    messages: Any = [{"role": "system", "content": "Be rude."}, {"role": "user", "content": "How?"}]
    running.client.chat.completions.create(model="desk", messages=messages, temperature=1.0, seed=7)
    assert provider.requests[-1] == {
        "model": "model-of-v1",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "How?"}],
        "temperature": 0.25,
        "seed": 7,
        "tools": [TOOL],
    }


def test_a_routed_answer_names_its_version_and_carries_a_receipt(running: Running) -> None:
    routed(running, "receipts")
    headers = running.ask("receipts").headers
    public = receipt_key(running.settings).private.public_key()
    receipt = verify(headers["x-bellbuoy-receipt"], {key_id(public): public})
    assert headers["x-bellbuoy-version"] == "v1"
    assert (receipt.interaction_id, receipt.app, receipt.version) == (headers["x-bellbuoy-id"], "receipts", "v1")
    assert (receipt.turn, receipt.route_epoch) == (1, 1)


def test_the_log_has_what_was_asked_and_answered(running: Running) -> None:
    routed(running, "told", system_prompt="Be kind.")
    more = {"x-bellbuoy-conversation": "c-1", "traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    raw = running.ask("told", user="somebody", extra_headers=more)
    (found,) = arrived(running.settings, "told")
    assert found.id == raw.headers["x-bellbuoy-id"]
    assert [(m.role, m.content) for m in found.input] == [("system", "Be kind."), ("user", "How?")]
    assert [(m.role, m.content) for m in found.output] == [("assistant", "So it is.")]
    assert (found.version, found.arm, found.route_epoch, found.turn) == ("v1", "champion", 1, 1)
    assert (found.request_model, found.response_model) == ("model-of-v1", "model-of-v1")
    assert (found.input_tokens, found.output_tokens, found.finish_reasons) == (11, 3, ["stop"])
    assert (found.conversation, found.trace_id, found.error_type) == ("c-1", "1" * 32, None)
    assert found.user not in (None, "somebody")
    assert found.latency_ms is not None
    assert found.latency_ms > 0


def test_a_stream_passes_chunk_by_chunk_as_it_comes(running: Running, provider: Provider) -> None:
    provider.release.clear()
    messages: Any = [{"role": "user", "content": "do:pause"}]
    stream: Any = running.client.chat.completions.create(model="paused", messages=messages, stream=True)
    first = next(iter(stream))
    assert first.choices[0].delta.content == "So "
    provider.release.set()
    assert [chunk.choices[0].delta.content for chunk in stream] == ["it ", "is.", None]


def test_a_stream_has_version_and_receipt_and_is_told_whole(running: Running) -> None:
    routed(running, "streams")
    raw = running.ask("streams", stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in raw.parse()) == "So it is."
    assert raw.headers["x-bellbuoy-version"] == "v1"
    (found,) = arrived(running.settings, "streams")
    assert (found.id, found.output[0].content, found.finish_reasons) == (raw.headers["x-bellbuoy-id"], "So it is.", ["stop"])
    assert found.time_to_first_chunk_ms is not None
    assert 0 < found.time_to_first_chunk_ms <= (found.latency_ms or 0)


def test_tool_calls_pass_and_are_told(running: Running) -> None:
    answer = running.ask("tools", tools=[TOOL]).parse()
    assert answer.choices[0].message.tool_calls[0].function.name == "look_up"
    (found,) = arrived(running.settings, "tools")
    assert [(call.id, call.name, call.arguments) for call in found.tool_calls] == [("call_1", "look_up", '{"x": 1}')]


@pytest.mark.parametrize(
    ("status", "error", "told"),
    [
        (400, openai.BadRequestError, "http_400"),
        (429, openai.RateLimitError, "rate_limit"),
        (500, openai.InternalServerError, "http_500"),
    ],
)
def test_errors_of_the_provider_pass_as_they_are(
    running: Running, status: int, error: type[openai.APIStatusError], told: str
) -> None:
    with pytest.raises(error) as raised:
        running.ask(f"failed-{status}", f"do:{status}")
    assert raised.value.code == "asked"
    assert (raised.value.response.headers["retry-after"], raised.value.response.headers["x-theirs"]) == ("7", "1")
    (found,) = arrived(running.settings, f"failed-{status}")
    assert (found.error_type, found.output) == (told, [])


def test_an_error_is_not_retried(running: Running, provider: Provider) -> None:
    before = len(provider.requests)
    with pytest.raises(openai.InternalServerError):
        running.ask("once", "do:503")
    assert len(provider.requests) == before + 1


def test_a_wrong_key_is_refused_in_the_clients_own_terms(running: Running) -> None:
    with openai.OpenAI(base_url=running.url, api_key="wrong", max_retries=0) as client, pytest.raises(openai.AuthenticationError):
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "q"}])


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"model":' + b"[" * 5_000])
def test_a_body_that_is_no_json_object_is_refused(running: Running, body: bytes) -> None:
    answer = httpx.post(f"{running.url}/chat/completions", content=body, headers={"authorization": f"Bearer {KEY}"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_too_large_a_body_is_refused(running: Running) -> None:
    with httpx.Client(timeout=60) as client:
        body = b'{"x":"' + b"x" * (64 * 1024 * 1024) + b'"}'
        answer = client.post(f"{running.url}/chat/completions", content=body, headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 413


def test_a_large_picture_passes_and_its_size_is_told(running: Running, provider: Provider) -> None:
    picture = "data:image/png;base64," + "A" * 3_000_000
    content: Any = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": picture}}]
    running.client.chat.completions.create(model="pictures", messages=[{"role": "user", "content": content}])
    assert len(provider.bodies[-1]) > 3_000_000
    (found,) = arrived(running.settings, "pictures")
    text, image = cast(list[ContentPart], found.input[0].content)
    assert (text.text, image.type, image.media_type) == ("What is it?", "image_url", "image/png")


def test_models_are_the_routed_apps_and_the_providers(running: Running) -> None:
    routed(running, "listed")
    names = [model.id for model in running.client.models.list()]
    assert "listed" in names
    assert names[-1] == "gpt"
    assert running.client.models.retrieve("listed").owned_by == "bellbuoy"


def test_the_async_client_works_too(running: Running) -> None:
    async def ask() -> list[str | None]:
        async with openai.AsyncOpenAI(base_url=running.url, api_key=KEY, _strict_response_validation=True) as client:
            ask = client.chat.completions.create
            answers = await asyncio.gather(
                *(ask(model="async", messages=[{"role": "user", "content": str(n)}]) for n in range(20))
            )
            return [answer.choices[0].message.content for answer in answers]

    assert asyncio.run(ask()) == ["So it is."] * 20


def test_a_client_that_goes_away_ends_the_providers_work_and_is_told(running: Running, provider: Provider) -> None:
    provider.release.clear()
    before = provider.aborted
    url = f"{running.url}/chat/completions"
    body = {"model": "left", "stream": True, "messages": [{"role": "user", "content": "do:pause"}]}
    with httpx.stream("POST", url, json=body, headers={"authorization": f"Bearer {KEY}"}) as stream:
        next(stream.iter_bytes())
    until(lambda: provider.aborted > before)
    provider.release.set()
    (found,) = arrived(running.settings, "left")
    assert (found.error_type, found.output[0].content) == ("cancelled", "So ")


def test_a_stream_that_breaks_off_ends_in_an_error_that_the_client_understands(running: Running) -> None:
    with pytest.raises(openai.APIError, match="cannot be reached"):
        list(running.ask("broken", "do:break", stream=True).parse())
    (found,) = arrived(running.settings, "broken")
    assert (found.error_type, found.output[0].content) == ("connection", "So ")


def test_units_of_a_canary_stay_where_they_are_and_starts_are_counted(running: Running, provider: Provider) -> None:
    routed(running, "canary", "good")
    with RouteWriter(running.settings, "canary", "production") as writer:
        table = writer.change(
            lambda now: with_candidate(
                now,  # type: ignore[arg-type]  # the table is there
                "new",
                CallConfiguration(model="model-of-new"),
                5_000,
                experiment="e",
                actor="test",
                reason="a test",
            )
        )
    applied(running, "canary", table.epoch)
    versions = [
        [
            running.ask("canary", extra_headers={"x-bellbuoy-conversation": f"c{n}"}).headers["x-bellbuoy-version"]
            for n in range(30)
        ]
        for _ in range(2)
    ]
    assert versions[0] == versions[1]
    assert set(versions[0]) == {"good", "new"}
    expected = {version: 2 * versions[0].count(version) for version in ("good", "new")}
    until(lambda: applied(running, "canary", table.epoch).started == expected)
    assert {version: provider.models().count(f"model-of-{version}") for version in expected} == expected
    with RouteWriter(running.settings, "canary", "production") as writer:
        table = writer.change(lambda now: with_champion(now, "good", actor="test", reason="a test", bad=["new"]))  # type: ignore[arg-type]  # the table is there
    assert applied(running, "canary", table.epoch).started == {}
    assert {running.ask("canary").headers["x-bellbuoy-version"] for _ in range(20)} == {"good"}


def test_a_second_gateway_of_the_same_name_is_refused(running: Running, provider: Provider, tmp_path: Path) -> None:
    with gateway(running.settings, provider.url, tmp_path / "log") as second:
        assert second.process.wait(30) != 0
        assert "in use by process" in second.log.read_text()


def test_names_that_a_stranger_wrote_are_cleaned_before_they_are_told(running: Running) -> None:
    body = {"model": "a\n" + "b" * 300, "messages": [{"role": "r" * 200, "content": "q", "name": "\u2028n"}]}
    answer = httpx.post(f"{running.url}/chat/completions", json=body, headers={"authorization": f"Bearer {KEY}"})
    assert answer.status_code == 200
    (found,) = arrived(running.settings, "a" + "b" * 127)
    assert (len(found.input[0].role), found.input[0].name) == (128, "n")


def test_sequences_of_one_start_have_no_gap(running: Running) -> None:
    for _ in range(5):
        running.ask("sequences")
    found = sorted(i.producer_sequence or 0 for i in arrived(running.settings, "sequences", 5))
    assert found == list(range(found[0], found[0] + 5))


def test_the_lease_is_renewed(running: Running) -> None:
    before = reports(running.settings, "gateway-1")[-1]
    later = until(lambda: now if (now := reports(running.settings, "gateway-1")[-1]).sequence > before.sequence + 1 else None)
    assert (later.incarnation, later.stopped) == (before.incarnation, False)


def test_it_says_so_when_it_stops(settings: Settings, provider: Provider, tmp_path: Path) -> None:
    named = settings.model_copy(update={"instance": "stops"})
    with gateway(named, provider.url, tmp_path / "log") as one:
        one.wait()
        one.ask("stopping")
        until(lambda: reports(named, "stops"))
        assert one.stop() == 0
    assert reports(named, "stops")[-1].stopped
    assert len(arrived(named, "stopping")) == 1


def test_what_is_under_way_is_finished_when_it_stops(settings: Settings, provider: Provider, tmp_path: Path) -> None:
    named = settings.model_copy(update={"instance": "finishes"})
    provider.release.clear()
    with gateway(named, provider.url, tmp_path / "log") as one:
        one.wait()
        messages: Any = [{"role": "user", "content": "do:pause"}]
        stream: Any = one.client.chat.completions.create(model="finishing", messages=messages, stream=True)
        next(iter(stream))
        one.process.terminate()
        time.sleep(0.5)
        provider.release.set()
        assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "it is."
        assert one.process.wait(30) == 0
    (found,) = arrived(named, "finishing")
    assert (found.error_type, json.dumps(found.finish_reasons)) == (None, '["stop"]')
