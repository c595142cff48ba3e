"""What the clients of two providers' own SDKs, Anthropic's and Google's, have in common: asking once, and with less where refused.

Owns the deadline, the stepping down when a model will not take a schema or a level of thinking, what a call cost, and the citations
of a search. It refuses to know either SDK and either wire.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, ClassVar, TypeVar

import msgspec

from llm_maker.llm.apis import faults
from llm_maker.llm.apis.openai_sdk import merged
from llm_maker.llm.budget import Cost, Pricer, Usage
from llm_maker.llm.providers import Citation, Completion, Finish, Found, ProviderError, ProviderSpec, SchemaMode
from llm_maker.llm.snapshot import clean

T = TypeVar("T")
Send = Callable[[SchemaMode, bool], Awaitable[bytes]]
"""(the form asked for, whether the thinking is set) -> the body of a success."""

MAX_CITATIONS = 40
MAX_URL = 2_000
MAX_TITLE = 200


class AskLess(Exception):
    """The server answered 400 because of something that we can leave out."""

    def __init__(self, error: ProviderError, *, thinking: bool, schema: bool) -> None:
        super().__init__(error.detail)
        self.error = error
        self.thinking = thinking
        self.schema = schema


class NativeClient(ABC):
    """One model. Made once, closed once. `extra` is laid over the provider's own and joins the body as it stands; a null in it
    takes a field out. `on_step` hears when the model will not take a schema, or the thinking we set, and less is asked.
    ValueError: `extra` holds what no body can, or a field that is ours.
    """

    _reserved: frozenset[str] = frozenset()
    _steps: tuple[SchemaMode, ...] = ("json_schema", "json_object", "prompt_only")
    _default_extra: ClassVar[dict[str, Any]] = {}
    _about_thinking: re.Pattern[str]
    _about_schema: re.Pattern[str]

    def __init__(
        self,
        spec: ProviderSpec,
        *,
        api_key: str,
        pricer: Pricer,
        base_url: str = "",
        model: str = "",
        extra: dict[str, Any] | None = None,
        schema_mode: SchemaMode | None = None,
        max_output_tokens: int = 4_000,
        clock: Callable[[], int] = time.time_ns,
        on_step: Callable[[str], None] = lambda line: None,
    ) -> None:
        wanted = schema_mode or spec.schema_mode
        self.provider = spec.name
        self.model = model or spec.model
        self.schema_mode: SchemaMode = wanted if wanted in self._steps else self._steps[-1]
        self._spec = spec
        self._secret = api_key.strip()
        self._pricer = pricer
        self._base_url = base_url or spec.base_url
        self._extra = merged(self._default_extra, spec.extra, self._checked(extra or {}))
        self._thinking = True
        self._max_output_tokens = max_output_tokens
        self._clock = clock
        self._on_step = on_step
        self._http = faults.client()
        self._open()

    @abstractmethod
    def _open(self) -> None:
        """Import the SDK and make its client."""

    def _checked(self, extra: dict[str, Any]) -> dict[str, Any]:
        ours = sorted(self._reserved & set(extra))
        if ours:
            raise ValueError(f"extra sets {', '.join(ours)}; these fields are ours")
        try:
            json.dumps(extra, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"extra holds what no JSON can: {error}") from None
        return extra

    async def _ask(self, send: Send, deadline_s: float, *, schema: bool) -> tuple[bytes, SchemaMode]:
        """Send within the deadline; where a 400 names what it will not take, again with less. What was answered is remembered."""
        faults.checked_key(self._secret)
        mode: SchemaMode = self.schema_mode if schema else "prompt_only"
        thinking = self._thinking
        try:
            async with asyncio.timeout(deadline_s):
                # At most once without the thinking, and once a step down.
                while True:
                    try:
                        body = await send(mode, thinking)
                        break
                    except AskLess as less:
                        if less.thinking and thinking:
                            thinking, refused = False, "the level of thinking"
                        elif less.schema and mode != self._steps[-1]:
                            refused, mode = mode, self._steps[self._steps.index(mode) + 1]
                        else:
                            raise less.error from None
                        self._on_step(f"{self.provider} {self.model}: {refused} refused ({less.error.detail}); asking with less")
        except TimeoutError:
            raise ProviderError("timeout", f"no whole answer within {deadline_s:.1f} s", maybe_billed=True) from None
        self._thinking = thinking
        if schema:
            self.schema_mode = mode
        return body, mode

    def _less(self, error: ProviderError, message: str) -> Exception:
        """What to raise for a 400 of kind bad_request with these words."""
        thinking, schema = (bool(about.search(message)) for about in (self._about_thinking, self._about_schema))
        return AskLess(error, thinking=thinking, schema=schema) if thinking or schema else error

    def _decoded(self, body: bytes, shape: type[T], name: str, usage: Usage | None) -> T:
        """The reply, or ProviderError with the usage that it tells at least."""
        try:
            return msgspec.json.decode(body, type=shape)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            what = f"not {name}: {error}" if body.strip() else "an empty body"
            raise self._malformed(what, usage) from None

    def _malformed(self, what: str, usage: Usage | None) -> ProviderError:
        return ProviderError("malformed", faults.safe(what, self._secret), maybe_billed=True, usage=usage)

    def _completion(self, text: str, finish: Finish, usage: Usage, model: str | None, mode: SchemaMode) -> Completion:
        cost = self._cost(usage)
        return Completion(faults.without(text, self._secret), finish, usage, cost.usd, cost.source, self._called(model), mode)

    def _found(self, text: str, cited: Iterable[Citation], finish: Finish, usage: Usage, model: str | None) -> Found:
        """Each address once, in the order of the text."""
        titles: dict[str, str] = {}
        for citation in cited:
            # A cut address leads elsewhere.
            if citation.url.startswith(("https://", "http://")) and len(citation.url) <= MAX_URL:
                url, title = (faults.without(part, self._secret) for part in (citation.url, citation.title))
                titles.setdefault(clean(url, MAX_URL), clean(title, MAX_TITLE))
        citations = tuple(Citation(url, title) for url, title in list(titles.items())[:MAX_CITATIONS])
        text, cost = faults.without(text, self._secret), self._cost(usage)
        return Found(text, citations, usage.searches, finish, usage, cost.usd, cost.source, self._called(model))

    def _cost(self, usage: Usage) -> Cost:
        """The tokens' price and the searches'. A reply that tells no tokens has an unknown price, not none."""
        cost = self._pricer.cost(usage, None, self._clock())
        if cost.usd is None or cost.source == "local":
            return cost
        if not (usage.input or usage.output):
            return Cost(None, "unknown")
        return Cost(cost.usd + usage.searches * self._spec.search_usd, cost.source)

    def _called(self, model: str | None) -> str:
        """The model's name as the server has it, harmless to print."""
        return clean(faults.without(model or self.model, self._secret), 80)

    def _must_search(self) -> None:
        if not self._spec.search_tools:
            raise ProviderError("bad_request", f"{self.provider} has no search tool")
