"""The ClientApp: one handler a phase."""

from __future__ import annotations

from functools import partial

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from fairsynth.federation import answering, site, site_teaching

from .session import answer

app = ClientApp()


@app.query("join")
def join(message: Message, context: Context) -> Message:
    """A key for this run, where the study is masked."""
    return answer(message, context, answering.join)


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


@app.query("teach")
def teach(message: Message, context: Context) -> Message:
    """Add up what the sites' common teacher needs to know."""
    from fairsynth.audit.fitting import bag_of_tokens

    return answer(message, context, partial(site_teaching.teach, bag=bag_of_tokens))


@app.query("feedback")
def feedback(message: Message, context: Context) -> Message:
    """Try a guide: add patients, train, count."""
    from fairsynth.audit.taught import feedback_site

    return answer(message, context, partial(site_teaching.feedback, attempt=feedback_site))


@app.query("audit")
def audit(message: Message, context: Context) -> Message:
    """Generate at home, evaluate on real held-out patients."""
    from fairsynth.audit.site import audit_site  # 2 s of imports that no other message needs: each is a new process

    return answer(message, context, partial(site.audit, evaluate=audit_site))
