"""How much one request may ask for: told by ``describe``, and checked before anything is run."""

from __future__ import annotations

from pydantic import Field

from garcon_jupyter.errors import BadRequest
from garcon_jupyter.operations.plain_data import Plain


class RequestLimits(Plain):
    """Bounds of one request, and of what waits."""

    prompt_tokens: int = Field(default=2048, ge=1, description="tokens of one prompt")
    prompts: int = Field(default=64, ge=1, description="prompts of one request")
    new_tokens: int = Field(
        default=1024, ge=1, description="tokens that one request generates for a prompt"
    )
    points: int = Field(default=256, ge=1, description="points that one request reads")
    strongest: int = Field(
        default=1000, ge=1, description="places, units or examples that are ranked"
    )
    edits: int = Field(default=256, ge=1, description="edits of one request")
    answer_bytes: int = Field(
        default=1 << 28, ge=1, description="bytes of the numbers of an answer"
    )
    body_bytes: int = Field(default=8 << 20, ge=1, description="bytes of a request")
    waiting: int = Field(
        default=64, ge=1, description="requests that wait; more are told to come back"
    )

    def check(self, name: str, asked: int, what: str) -> None:
        """Refuse what is over a limit.

        Args:
            name: of the limit, a field of this class.
            asked: how many there are.
            what: what they are, at the beginning of the sentence: "A prompt has 2,049 tokens".

        Raises:
            BadRequest: it is over the limit; with both numbers.
        """
        limit = getattr(self, name)
        if asked > limit:
            raise BadRequest(
                f"{what}; the limit is {limit:,} (limits.{name}).",
                "Ask for less at a time, or have the owner of this door raise the limit.",
            )
