"""The ClientApp: one handler a phase."""

from __future__ import annotations

from functools import partial

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fairsynth.federation import site

from .session import answer

app = ClientApp()


@app.query("enrol")
def enrol(message: Message, context: Context) -> Message:
    """Extract, build the cohort, propose codes."""
    return answer(message, context, site.enrol)


@app.query("agree")
def agree(message: Message, context: Context) -> Message:
    """Encode the cohort with the shared vocabulary."""
    return answer(message, context, site.agree)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Count what the model predicts, then train it."""
    return answer(message, context, site.train)


@app.query("audit")
def audit(message: Message, context: Context) -> Message:
    """Generate at home, evaluate on real held-out patients."""
    from fairsynth.audit.site import audit_site  # 2 s of imports that no other message needs: each is a new process

    return answer(message, context, partial(site.audit, evaluate=audit_site))
