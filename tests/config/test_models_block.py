"""``models.providers`` and what subprocess agents are given: reading, faults, and no secret in any view."""

from __future__ import annotations

import json

import pytest

from openclaw_gateway.config.redact import MARKER, redact, redact_raw
from openclaw_gateway.config.schema import ModelEntry, ProviderConfig

from .conftest import Home

KEY = "abc-not-shaped-like-any-key"


def test_s012_a_provider_as_openclaw_writes_it(home: Home) -> None:
    home.env["LITELLM_KEY"] = KEY
    loaded = home.load("""{ models: { mode: "merge", providers: { "custom-proxy": {
        baseUrl: "http://localhost:4000/v1/", apiKey: "${LITELLM_KEY}", api: "openai-completions",
        headers: { "X-Tenant": "t-1" }, maxTokens: 9000, timeoutSeconds: 300,
        models: [{ id: "llama-3.1-8b", name: "Llama", reasoning: false, input: ["text"], contextWindow: 128000,
                   contextTokens: 96000, maxTokens: 32000, cost: { input: 0 } }] } } } }""")
    assert loaded.config.models.providers["custom-proxy"] == ProviderConfig(
        api="openai-completions",
        base_url="http://localhost:4000/v1",
        api_key=KEY,
        headers={"X-Tenant": "t-1"},
        max_tokens=9_000,
        timeout_seconds=300,
        models=(
            ModelEntry(
                id="llama-3.1-8b",
                name="Llama",
                input=("text",),
                context_window=128_000,
                context_tokens=96_000,
                max_tokens=32_000,
            ),
        ),
    )
    assert not loaded.degraded
    assert KEY not in repr(loaded.config)


@pytest.mark.parametrize(
    ("word", "api"),
    [
        ("anthropic", "anthropic-messages"),
        ("openai", "openai-completions"),
        ("google", "google-generative-ai"),
        ("google-generative-ai", "google-generative-ai"),
    ],
)
def test_short_words_for_the_apis(home: Home, word: str, api: str) -> None:
    loaded = home.load(f'{{ models: {{ providers: {{ a: {{ api: "{word}", baseUrl: "https://a.test" }} }} }} }}')
    assert loaded.config.models.providers["a"].api == api


@pytest.mark.parametrize(
    "provider",
    [
        '{ api: "openai-responses" }',
        '{ baseUrl: "ftp://a.test" }',
        '{ baseUrl: "wss://a.test" }',
        f'{{ baseUrl: "https://user:{KEY}@a.test" }}',
        f'{{ baseUrl: "https://a.test/?key={KEY}" }}',
        f'{{ apiKey: " {KEY}" }}',
        '{ apiKey: "${NOT_SET_ANYWHERE}" }',
        f'{{ headers: {{ "X Bad": "{KEY}" }} }}',
        f'{{ headers: {{ "X-Bad": "{KEY}\\u00e4" }} }}',
        f'{{ headers: {{ Host: "{KEY}" }} }}',
        '{ headers: "x" }',
        "{ timeoutSeconds: 0 }",
        '{ models: [{ name: "no id" }] }',
        '{ models: [{ id: "a", input: ["smell"] }] }',
        '{ models: [{ id: "a", contextWindow: 1 }] }',
    ],
)
def test_a_provider_with_a_fault_is_not_in_use_and_no_secret_is_told(home: Home, provider: str) -> None:
    loaded = home.load(f'{{ models: {{ providers: {{ bad: {provider}, good: {{ baseUrl: "https://g.test" }} }} }} }}')
    good, bad = (loaded.config.models.providers.get(name) for name in ("good", "bad"))
    assert good is not None
    assert bad is None or bad.models == ()
    assert loaded.issues
    assert KEY not in str(loaded.issues)


def test_v51_every_view_of_a_provider_hides_key_and_headers() -> None:
    for name in ("a", "dotted.name"):
        tree = {
            "models": {"providers": {name: {"apiKey": KEY, "headers": {"X-Tenant": KEY}, "baseUrl": "https://a.test"}}},
            "agents": {"list": [{"id": "a", "env": {"TENANT": KEY}}]},
        }
        shown = redact(tree)
        assert KEY not in str(shown)
        assert shown["models"]["providers"][name]["headers"]["X-Tenant"] == MARKER
        assert shown["models"]["providers"][name]["baseUrl"] == "https://a.test"

        assert KEY not in redact_raw(json.dumps(tree))


def test_the_environment_of_a_subprocess_agent(home: Home) -> None:
    text = '{ agents: { list: [{ id: "a", kind: "subprocess", command: ["/bin/cat"], env: { A_KEY: "${MINE}" } }] } }'
    home.env["MINE"] = KEY
    assert home.load(text).config.agents.list[0].env == {"A_KEY": KEY}
    del home.env["MINE"]
    assert home.load(text).config.agents.list == ()
    bad = home.load(text.replace("A_KEY", '"A-KEY"').replace("${MINE}", KEY))
    assert bad.config.agents.list == ()
    assert KEY not in str(bad.issues)


@pytest.mark.parametrize(
    ("text", "path", "told"),
    [
        (
            '{ agents: { defaults: { model: "antropic/x" } } }',
            "agents.defaults.model.primary",
            "mean anthropic?",
        ),
        ('{ agents: { defaults: { model: "claude" } } }', "agents.defaults.model.primary", "provider/model"),
        ('{ agents: { defaults: { model: "openai/x" } } }', "agents.defaults.model.primary", "no key for openai"),
        (
            '{ agents: { list: [{ id: "a", model: { primary: "google/x", fallbacks: ["b/c"] } }] } }',
            "agents.list.0.model.fallbacks",
            "no model service b",
        ),
        ('{ agents: { list: [{ id: "a", kind: "subprocess" }] } }', "agents.list.0.command", "no program"),
        ('{ agents: { list: [{ id: "a" }, { id: "a" }] } }', "agents.list.1.id", "twice"),
        ("{ models: { providers: { a: {} } } }", "models.providers.a.baseUrl", "nobody knows where"),
        (
            '{ models: { providers: { a: { baseUrl: "http://8.8.8.8/v1", apiKey: "k-123456" } } } }',
            "models.providers.a.baseUrl",
            "without encryption",
        ),
    ],
)
def test_what_cannot_answer_is_told_at_the_start(home: Home, text: str, path: str, told: str) -> None:
    home.env["GEMINI_API_KEY"] = "k-123456"
    loaded = home.load(text)
    [issue] = [issue for issue in loaded.issues if issue.path == path]
    assert told in issue.message
    assert issue.severity == "warning"
    assert not loaded.degraded


def test_what_can_answer_has_no_issue(home: Home) -> None:
    home.env["ANTHROPIC_API_KEY"] = "k-123456"
    loaded = home.load("""{ agents: { defaults: { model: { primary: "anthropic/x", fallbacks: ["l/y"] } } },
        models: { providers: { l: { baseUrl: "http://192.168.1.5:8000/v1", apiKey: "k-123456" } } } }""")
    assert loaded.issues == ()
