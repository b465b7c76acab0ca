"""Which services and models there are, and where keys come from."""

from __future__ import annotations

import pytest

from openclaw_gateway.agents.records import AgentFailed
from openclaw_gateway.config.schema import (
    AgentDefaults,
    AgentEntry,
    AgentsConfig,
    GatewayConfig,
    ModelChoice,
    ModelEntry,
    ModelsConfig,
    ProviderConfig,
)
from openclaw_gateway.models.catalog import MAX_CANDIDATES, Catalog, parse_ref

ENV = {"ANTHROPIC_API_KEY": "key-a", "OPENAI_API_KEY": "key-o", "GOOGLE_API_KEY": "key-g", "OTHER_API_KEY": "key-x"}


def catalog(
    env: dict[str, str] | None = None, agents: AgentsConfig | None = None, **providers: ProviderConfig
) -> Catalog:
    config = GatewayConfig(models=ModelsConfig(providers=providers), agents=agents or AgentsConfig())
    return Catalog(config, env or {})


def test_s012_the_makers_need_no_configuration_but_their_key() -> None:
    known = catalog(ENV)
    found = {name: known.settings(name) for name in ("anthropic", "openai", "google")}
    assert [one.key for one in found.values()] == ["key-a", "key-o", "key-g"]
    assert [one.base_url.split("/")[2] for one in found.values()] == [
        "api.anthropic.com",
        "api.openai.com",
        "generativelanguage.googleapis.com",
    ]
    assert all(one.at_home for one in found.values())
    assert not any("key-" in repr(one) for one in found.values())


def test_v56_a_key_of_the_environment_goes_to_its_own_service_alone() -> None:
    known = catalog(ENV, other=ProviderConfig(base_url="http://127.0.0.1:1/v1"))
    assert known.settings("other").key is None
    assert known.key_source("other") is None
    assert known.key_source("openai") == "env"


def test_the_configured_key_wins_and_another_address_is_not_the_makers() -> None:
    known = catalog(ENV, openai=ProviderConfig(base_url="http://127.0.0.1:1/v1/", api_key="mine"))
    settings = known.settings("openai")
    assert (settings.key, settings.base_url, settings.at_home) == ("mine", "http://127.0.0.1:1/v1", False)
    assert known.key_source("openai") == "config"
    assert not known.needs_key("openai")


def test_what_a_name_does_not_say_is_openais_api() -> None:
    known = catalog(local=ProviderConfig(base_url="http://127.0.0.1:1/v1"), bare=ProviderConfig())
    assert known.settings("local").dialect.name == "openai-completions"
    with pytest.raises(AgentFailed, match=r"models\.providers\.bare\.baseUrl"):
        known.settings("bare")
    with pytest.raises(AgentFailed, match="no model service 'nowhere'"):
        known.settings("nowhere")


def test_models_that_somebody_named_or_described() -> None:
    agents = AgentsConfig(
        defaults=AgentDefaults(model=ModelChoice(primary="anthropic/claude-x", fallbacks=("local/small", "nonsense"))),
        list=(AgentEntry(id="a", model=ModelChoice(primary="openai/gpt-x")),),
    )
    local = ProviderConfig(
        base_url="http://127.0.0.1:1/v1",
        max_tokens=99,
        models=(
            ModelEntry(id="small", context_window=4_096),
            ModelEntry(id="sees", input=("text", "image"), max_tokens=7),
        ),
    )
    known = catalog(agents=agents, local=local)
    assert [str(ref) for ref in known.choices()] == ["anthropic/claude-x", "local/small", "openai/gpt-x", "local/sees"]
    assert known.providers == ["local", "anthropic", "openai"]
    small, sees = known.model(parse_ref("local/small")), known.model(parse_ref("local/sees"))
    assert (small.images, small.context_tokens, small.max_tokens) == (False, 4_096, 99)
    assert (sees.images, sees.context_tokens, sees.max_tokens) == (True, None, 7)
    assert known.model(parse_ref("anthropic/new")).images


def test_candidates() -> None:
    choice = ModelChoice(primary="a/one", fallbacks=("b/two", "a/one", "c/three/with/slashes"))
    assert [str(ref) for ref in Catalog.candidates(choice, None)] == ["a/one", "b/two", "c/three/with/slashes"]
    assert [str(ref) for ref in Catalog.candidates(choice, "z/chosen")] == ["z/chosen"], "a chosen model is asked alone"
    many = ModelChoice(primary="a/0", fallbacks=tuple(f"a/{number}" for number in range(100)))
    assert len(Catalog.candidates(many, None)) == MAX_CANDIDATES
    with pytest.raises(AgentFailed, match="openclaw config set agents"):
        Catalog.candidates(ModelChoice(), None)


@pytest.mark.parametrize("text", ["", "model", "/model", "provider/", "a/" + "b" * 300, "a/b\nc"])
def test_what_names_no_model(text: str) -> None:
    with pytest.raises(AgentFailed):
        parse_ref(text)
