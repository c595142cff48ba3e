"""A fake model server for tests: OpenAI Responses, chat completions, Anthropic messages and Gemini, over real sockets."""

from tests.fakes.models.address import Address, refused
from tests.fakes.models.asked import HANDLE, Seen, Wire
from tests.fakes.models.bill import Billed
from tests.fakes.models.faults import STEPS, Step
from tests.fakes.models.server import THROWAWAY_KEY, ModelServer, parse_script
from tests.fakes.models.texts import NOTES, SOURCES, seed_signal, signal
from tests.fakes.models.wires import Usage

__all__ = [
    "HANDLE", "NOTES", "SOURCES", "STEPS", "THROWAWAY_KEY", "Address", "Billed", "ModelServer", "Seen", "Step", "Usage", "Wire",
    "parse_script", "refused", "seed_signal", "signal",
]  # fmt: skip
